"""OpenMMLab's heads that several families share: options of ours, and where each tensor goes."""

from collections.abc import Sequence

from torch import Tensor

from nets.errors import UserError
from nets.importers.mmseg_config import aux_sections, norm_eps, take, type_of
from nets.importers.placing import Rules

# What every decode head has, with its own defaults.
COMMON = {
    "channels": None,
    "dropout_ratio": 0.1,
    "in_index": -1,
    "align_corners": False,
    "input_transform": None,
    "conv_cfg": None,
    "act_cfg": {"type": "ReLU"},
}


def take_head(head: dict, own: dict) -> dict:
    """Return the options of a decode head, the common ones checked.

    Args:
        head: section of the configuration.
        own: the head's own options with their defaults.

    Raises:
        UserError: other convolutions or activations than usual, or an unknown option.
    """
    options = take(head, COMMON | own)
    act = options["act_cfg"] or {}
    if options["conv_cfg"] not in (None, {"type": "Conv"}, {"type": "Conv2d"}) or act.get("type") != "ReLU":
        raise UserError(f"{type_of(head)} has other convolutions or activations than Conv2d and ReLU")
    return options


def single_index(head: dict, options: dict) -> int:
    """Return the one map that a head uses.

    Raises:
        UserError: the head joins several.
    """
    if options["input_transform"] is not None or not isinstance(options["in_index"], int):
        raise UserError(f"{type_of(head)} joins several maps, which no network here does")
    return options["in_index"]


def map_indices(head: dict, options: dict) -> tuple[int, ...]:
    """Return the maps that a head uses; several are resized to the first of them and concatenated.

    Raises:
        UserError: the head treats them otherwise.
    """
    if options["input_transform"] not in (None, "resize_concat"):
        raise UserError(
            f"{type_of(head)} has input_transform={options['input_transform']!r}; "
            "None or 'resize_concat' is needed"
        )
    index = options["in_index"]
    return (index,) if isinstance(index, int) else tuple(index)


def dropout_rate(options: dict) -> float:
    """Return the rate of a head's dropout; old configurations say -1 where there is none."""
    return max(0.0, float(options["dropout_ratio"]))


def shared_options(head: dict, options: dict) -> dict:
    """Return the builder options that all heads have."""
    return {
        "channels": options["channels"],
        "dropout": dropout_rate(options),
        "align_corners": bool(options["align_corners"]),
        "norm_eps": norm_eps(head),
    }


def fcn_head(head: dict) -> dict:
    """Return the arguments of our `FCNHead` that make an OpenMMLab FCNHead."""
    o = take_head(head, {"num_convs": 2, "kernel_size": 3, "concat_input": True, "dilation": 1})
    return shared_options(head, o) | {
        "index": map_indices(head, o),
        "num_convs": o["num_convs"],
        "kernel_size": o["kernel_size"],
        "dilation": o["dilation"],
        "concat_input": o["concat_input"],
    }


def own_head(head: dict, order: Sequence[int]) -> dict:
    """Return the builder options that make an OpenMMLab FCNHead on the maps of a network of one's own.

    Args:
        head: section of the configuration.
        order: our number of each of their maps.
    """
    options = fcn_head(head)
    outside = {key: options.pop(key) for key in ("channels", "dropout", "align_corners")}
    return outside | {"head_options": reorder(options, order)}


def reorder(options: dict, order: Sequence[int]) -> dict:
    """Return a head's arguments with our numbers of the maps."""
    return options | {"index": tuple(order[i] for i in options["index"])}


def conv_rules(theirs: str, ours: str) -> Rules:
    """Return the rules of a convolution with norm: the checkpoint's pattern and our name, without the dot."""
    return [(rf"{theirs}\.conv\.", f"{ours}.conv."), (rf"{theirs}\.bn\.", f"{ours}.norm.")]


def separable_rules(theirs: str, ours: str) -> Rules:
    """Return the rules of a depthwise separable convolution."""
    return [
        *conv_rules(rf"{theirs}\.depthwise_conv", f"{ours}.depthwise"),
        *conv_rules(rf"{theirs}\.pointwise_conv", f"{ours}.pointwise"),
    ]


def fcn_rules(head: str, decoder: str, classifier: str) -> Rules:
    """Return the rules of an FCNHead: its pattern in the checkpoint, our decoder and classifier."""
    return [
        (rf"{head}\.conv_seg\.", f"{classifier}."),
        *conv_rules(rf"{head}\.convs\.(\d+)", rf"{decoder}.convs.\1"),
        *conv_rules(rf"{head}\.conv_cat", f"{decoder}.join"),
    ]


def aux_options(model: dict, order: Sequence[int] | None = None) -> tuple[dict, ...]:
    """Return what the builders' option `aux_heads` is for a configuration.

    Args:
        model: the configuration's model section.
        order: our number of each of their maps; None where the numbers are the same.

    Raises:
        UserError: an auxiliary head that is no FCNHead or has its own number of classes.
    """
    heads = aux_sections(model)
    for head in heads:
        if type_of(head) != "FCNHead":
            raise UserError(f"the auxiliary head {type_of(head)!r} is not here; FCNHead is")
    described = (fcn_head(head) for head in heads)
    return tuple(described if order is None else (reorder(each, order) for each in described))


def aux_rules(model: dict) -> Rules:
    """Return the rules of the auxiliary FCN heads, which are numbered where the configuration lists them."""
    heads = model.get("auxiliary_head") or []
    if isinstance(heads, dict):
        return fcn_rules("auxiliary_head", "aux_heads.0.decoder", "aux_heads.0.classifier")
    rules: Rules = []
    for i in range(len(heads)):
        rules += fcn_rules(rf"auxiliary_head\.{i}", f"aux_heads.{i}.decoder", f"aux_heads.{i}.classifier")
    return rules


def psp_head(head: dict) -> dict:
    """Return the options of ours that make an OpenMMLab PSPHead."""
    o = take_head(head, {"pool_scales": (1, 2, 3, 6)})
    return shared_options(head, o) | {
        "in_index": single_index(head, o),
        "pool_scales": tuple(o["pool_scales"]),
        "pool_channels": o["channels"],
        "join_kernel": 3,
    }


def psp_rules(decoder: str) -> Rules:
    """Return the rules of a PSPHead that is our decoder of that name and our classifier."""
    return [
        (r"decode_head\.conv_seg\.", "classifier."),
        *conv_rules(r"decode_head\.psp_modules\.(\d+)\.1", rf"{decoder}.pyramid.branches.\1.1"),
        *conv_rules(r"decode_head\.bottleneck", f"{decoder}.join"),
    ]


def uper_head(head: dict) -> dict:
    """Return the options of ours that make an OpenMMLab UPerHead.

    Raises:
        UserError: it is not on all four maps.
    """
    o = take_head(head, {"pool_scales": (1, 2, 3, 6)})
    if list(o["in_index"]) != [0, 1, 2, 3]:
        raise UserError(f"UPerHead has in_index={o['in_index']}; all four maps of a backbone are needed")
    return shared_options(head, o) | {"pool_scales": tuple(o["pool_scales"])}


def uper_rules() -> Rules:
    """Return the rules of a UPerHead."""
    return [
        *psp_rules("decoder.context"),
        *conv_rules(r"decode_head\.lateral_convs\.(\d+)", r"decoder.laterals.\1"),
        *conv_rules(r"decode_head\.fpn_convs\.(\d+)", r"decoder.smooth.\1"),
        *conv_rules(r"decode_head\.fpn_bottleneck", "decoder.fuse"),
    ]


def aspp_head(head: dict, own: dict) -> dict:
    """Return the options of ours that make an OpenMMLab ASPPHead with further options `own`."""
    o = take_head(head, {"dilations": (1, 6, 12, 18)} | own)
    return shared_options(head, o) | {
        "in_index": single_index(head, o),
        "dilations": tuple(o["dilations"]),
        "join_kernel": 3,
    }


def aspp_rules(decoder: str, dilations: tuple[int, ...], *, separable: bool) -> Rules:
    """Return the rules of an ASPPHead that is our decoder of that name and our classifier."""
    rules: Rules = [
        (r"decode_head\.conv_seg\.", "classifier."),
        *conv_rules(r"decode_head\.image_pool\.1", f"{decoder}.aspp.pooled.1"),
        *conv_rules(r"decode_head\.bottleneck", f"{decoder}.aspp.join"),
    ]
    for i, dilation in enumerate(dilations):
        make = separable_rules if separable and dilation > 1 else conv_rules
        rules += make(rf"decode_head\.aspp_modules\.{i}", f"{decoder}.aspp.branches.{i}")
    return rules


def pooled_branch_last(
    state_dict: dict[str, Tensor], *, channels: int, layer: str = "decode_head.bottleneck"
) -> dict[str, Tensor]:
    """Return the weights with a layer's first input channels, the pooled ones, behind the others.

    That is where the papers have them.
    """
    key = f"{layer}.conv.weight"
    return {**state_dict, key: state_dict[key].roll(-channels, dims=1)}
