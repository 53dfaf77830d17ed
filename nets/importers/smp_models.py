"""Weights of segmentation_models.pytorch's Unet, PSPNet, DeepLabV3 and DeepLabV3Plus on ResNets.

https://github.com/qubvel-org/segmentation_models.pytorch, MIT. A state dict does not show the output stride
and the dilations of DeepLab's branches; they are arguments here, with that package's defaults.
"""

import torch
from torch import Tensor

from nets.errors import UserError
from nets.importers.placing import Rules, rename
from nets.importers.torchvision_models import resnet_name

# DeepLab's ResNets: strides and dilations per stage at each output stride.
DILATED = {8: ((1, 2, 1, 1), (1, 1, 2, 4)), 16: ((1, 2, 2, 1), (1, 1, 1, 2))}


def is_smp(state_dict: dict[str, Tensor]) -> bool:
    """Return whether these are the weights of a network of segmentation_models.pytorch."""
    return "segmentation_head.0.weight" in state_dict and any(
        key.startswith("encoder.") for key in state_dict
    )


def read_smp(
    state_dict: dict[str, Tensor],
    *,
    output_stride: int | None = None,
    dilations: tuple[int, ...] = (12, 24, 36),
) -> tuple[dict, dict[str, Tensor]]:
    """Translate the weights of a network of segmentation_models.pytorch.

    Args:
        state_dict: its weights.
        output_stride: DeepLab's `encoder_output_stride`, 8 or 16; None is 8 for v3, 16 for v3+.
        dilations: DeepLab's `decoder_atrous_rates`.

    Returns:
        The blueprint and the state dict of our network, which `place_weights` loads.

    Raises:
        UserError: another network.
    """
    if "encoder.conv1.weight" not in state_dict or "segmentation_head.0.weight" not in state_dict:
        raise UserError(
            "these are not the weights of a segmentation_models.pytorch network on a ResNet; "
            "only these can be imported"
        )
    readers = {
        "decoder.blocks.0.conv1.0.weight": _unet,
        "decoder.psp.blocks.0.pool.1.0.weight": _pspnet,
        "decoder.aspp.0.convs.0.0.weight": _deeplab_v3plus,
        "decoder.aspp.convs.0.0.weight": _deeplab_v3,
    }
    read = next((function for mark, function in readers.items() if mark in state_dict), None)
    if read is None:
        raise UserError(
            "only Unet, PSPNet, DeepLabV3 and DeepLabV3Plus of segmentation_models.pytorch can be imported"
        )
    shared = {
        "bands": state_dict["encoder.conv1.weight"].shape[1],
        "num_classes": state_dict["segmentation_head.0.weight"].shape[0],
        "backbone": resnet_name(state_dict, "encoder."),
    }
    if read in (_deeplab_v3, _deeplab_v3plus):
        usual = 16 if read is _deeplab_v3plus else 8
        name, options, rules = read(state_dict, _dilated(output_stride or usual), (1, *dilations))
    else:
        name, options, rules = read(state_dict)
    if name == "pspnet":
        state_dict = _input_first(state_dict)
    rules += [(r"segmentation_head\.0\.", "classifier."), (r"encoder\.", "backbone.body.")]
    return {"name": name, "options": {**shared, **options}}, rename(state_dict, rules)


def _dilated(output_stride: int) -> dict:
    if output_stride not in DILATED:
        raise UserError(f"output_stride={output_stride} is given; 8 and 16 are allowed")
    strides, dilations = DILATED[output_stride]
    return {
        "strides": strides,
        "dilations": dilations,
        "contract_dilation": False,
        "dilate_second": True,
    }


def _conv_rules(theirs: str, ours: str) -> Rules:
    return [(rf"{theirs}\.0\.", f"{ours}.conv."), (rf"{theirs}\.1\.", f"{ours}.norm.")]


def _separable_rules(theirs: str, norm: str, ours: str) -> Rules:
    return [
        (rf"{theirs}\.0\.", f"{ours}.depthwise.conv."),
        (rf"{theirs}\.1\.", f"{ours}.pointwise.conv."),
        (rf"{norm}\.", f"{ours}.pointwise.norm."),
    ]


def _unet(state_dict: dict[str, Tensor]) -> tuple[str, dict, Rules]:
    widths = []
    while f"decoder.blocks.{len(widths)}.conv1.0.weight" in state_dict:
        widths.append(state_dict[f"decoder.blocks.{len(widths)}.conv1.0.weight"].shape[0])
    rules = [
        rule
        for i in (1, 2)
        for rule in _conv_rules(rf"decoder\.blocks\.(\d+)\.conv{i}", rf"decoder.blocks.\1.{i - 1}")
    ]
    return "unet", {"decoder_channels": tuple(widths)}, rules


def _pspnet(state_dict: dict[str, Tensor]) -> tuple[str, dict, Rules]:
    projected = state_dict["decoder.psp.blocks.0.pool.1.0.weight"]
    channels = state_dict["decoder.conv.0.weight"].shape[0]
    # The grids lie on the map of stride 8 by default; the encoder's further stages are idle.
    stages = next(i for i in (1, 2, 3, 4) if _stage_width(state_dict, i) == projected.shape[1])
    options = {
        "channels": channels,
        "pool_channels": projected.shape[0],
        "join_kernel": 1,
        "norm_single": False,
        "dropout": 0.2,
        "classifier_kernel": 3,
        "align_corners": True,
        "backbone_options": {
            "strides": (1, 2, 2, 2)[:stages],
            "dilations": (1,) * stages,
            "out_stages": tuple(range(stages)),
        },
    }
    rules: Rules = [(rf"encoder\.layer{i}\.", None) for i in range(stages + 1, 5)]
    rules += _conv_rules(r"decoder\.psp\.blocks\.(\d+)\.pool\.1", r"decoder.pyramid.branches.\1.1")
    rules += _conv_rules(r"decoder\.conv", "decoder.join")
    return "pspnet", options, rules


def _stage_width(state_dict: dict[str, Tensor], stage: int) -> int:
    block = f"encoder.layer{stage}.0"
    last = state_dict.get(f"{block}.conv3.weight", state_dict[f"{block}.conv2.weight"])
    return last.shape[0]


def _input_first(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the input's channels before those of the grids, where the paper has them."""
    key = "decoder.conv.0.weight"
    weight = state_dict[key]
    width = state_dict["decoder.psp.blocks.0.pool.1.0.weight"].shape[1]
    return {**state_dict, key: torch.cat([weight[:, -width:], weight[:, :-width]], dim=1)}


def _aspp_rules(theirs: str, *, separable: bool) -> Rules:
    ours = "decoder.aspp"
    rules = [
        (rf"{theirs}\.convs\.4\.1\.", f"{ours}.pooled.1.conv."),
        (rf"{theirs}\.convs\.4\.2\.", f"{ours}.pooled.1.norm."),
        *_conv_rules(rf"{theirs}\.convs\.0", f"{ours}.branches.0"),
        *_conv_rules(rf"{theirs}\.project", f"{ours}.join"),
    ]
    for i in (1, 2, 3):
        branch, place = rf"{theirs}\.convs\.{i}", f"{ours}.branches.{i}"
        if separable:
            rules += _separable_rules(rf"{branch}\.0", rf"{branch}\.1", place)
        else:
            rules += _conv_rules(branch, place)
    return rules


def _deeplab_v3(
    state_dict: dict[str, Tensor], backbone: dict, dilations: tuple[int, ...]
) -> tuple[str, dict, Rules]:
    if "decoder.aspp.convs.1.0.1.weight" in state_dict:
        raise UserError("DeepLabV3 with decoder_aspp_separable cannot be imported; DeepLabV3Plus can")
    options = {
        "version": "v3",
        "channels": state_dict["decoder.conv.weight"].shape[0],
        "dilations": dilations,
        "join_dropout": 0.5,
        "num_convs": 1,
        "dropout": 0.0,
        "align_corners": True,
        "backbone_options": backbone,
    }
    rules = _aspp_rules(r"decoder\.aspp", separable=False)
    rules += [(r"decoder\.conv\.", "decoder.refine.0.conv."), (r"decoder\.bn\.", "decoder.refine.0.norm.")]
    return "deeplab", options, rules


def _deeplab_v3plus(
    state_dict: dict[str, Tensor], backbone: dict, dilations: tuple[int, ...]
) -> tuple[str, dict, Rules]:
    if "decoder.aspp.0.convs.1.0.1.weight" not in state_dict:
        raise UserError("DeepLabV3Plus without decoder_aspp_separable cannot be imported")
    options = {
        "version": "v3plus",
        "channels": state_dict["segmentation_head.0.weight"].shape[1],
        "low_channels": state_dict["decoder.block1.0.weight"].shape[0],
        "dilations": dilations,
        "join_dropout": 0.5,
        "aspp_convs": 1,
        "num_convs": 1,
        "norm_between": False,
        "dropout": 0.0,
        "align_corners": True,
        "backbone_options": backbone,
    }
    rules = _aspp_rules(r"decoder\.aspp\.0", separable=True)
    rules += _separable_rules(r"decoder\.aspp\.1", r"decoder\.aspp\.2", "decoder.deepen.0")
    rules += _conv_rules(r"decoder\.block1", "decoder.low")
    rules += _separable_rules(r"decoder\.block2\.0", r"decoder\.block2\.1", "decoder.refine.0")
    return "deeplab", options, rules
