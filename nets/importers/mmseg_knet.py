"""OpenMMLab's IterativeDecodeHead around another decode head: family knet."""

from torch import Tensor

from nets.errors import UserError
from nets.importers import mmseg_deeplab, mmseg_fcn, mmseg_pspnet, mmseg_upernet
from nets.importers.attention_weights import split_projections
from nets.importers.mmseg_config import last_head, layer_norm_eps, need, take, type_of
from nets.importers.placing import Rules

HEADS = ("IterativeDecodeHead",)
# Decode head -> our decoder, and its translator.
GENERATORS = {
    "FCNHead": ("fcn", mmseg_fcn),
    "PSPHead": ("pspnet", mmseg_pspnet),
    "ASPPHead": ("deeplabv3", mmseg_deeplab),
    "UPerHead": ("upernet", mmseg_upernet),
}
# Options of those families that are ours too.
OWN = ("backbone", "channels", "dropout", "align_corners", "norm_eps", "aux_heads", "backbone_options")
PREFIX = "decode_head.kernel_generate_head."
RELU = {"type": "ReLU", "inplace": True}


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    head = last_head(model)
    o = take(head, {"num_stages": None, "kernel_generate_head": None, "kernel_update_head": None})
    generator, stages = o["kernel_generate_head"], list(o["kernel_update_head"])
    if type_of(generator) not in GENERATORS:
        raise UserError(
            f"IterativeDecodeHead has the kernel_generate_head {type_of(generator)!r}; here are "
            f"{', '.join(GENERATORS)}"
        )
    decoder, translator = GENERATORS[type_of(generator)]
    bare = [_outer(key) for key in keys]
    _, options, rules, *converts = translator.translate({**model, "decode_head": generator}, bare)
    own = {key: options.pop(key) for key in OWN if key in options}
    described = [_stage(stage, own["channels"]) for stage in stages]
    if not stages or any(each != described[0] for each in described):
        raise UserError("IterativeDecodeHead has stages that differ, or none; all need the same options here")
    ours = {"decoder": decoder, "stages": len(stages), **own, **described[0], "decoder_options": options}
    return "knet", ours, [*_rules(), *rules], _bare, *converts, split_projections


def _outer(key: str) -> str:
    """Return a tensor's name as in a network without stages."""
    return f"decode_head.{key.removeprefix(PREFIX)}" if key.startswith(PREFIX) else key


def _bare(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_outer(key): value for key, value in state_dict.items()}


def _stage(section: dict, channels: int) -> dict:
    """Return the builder's options of a KernelUpdateHead."""
    section = {"type": "KernelUpdateHead", **section}
    # What its own signature says is for another updater than the only one there is.
    o = take(
        {**section, "out_channels": None, "in_channels": None},
        {
            "num_ffn_fcs": 2, "num_heads": 8, "num_mask_fcs": 3, "feedforward_channels": 2048, "dropout": 0.0,
            "act_cfg": RELU, "ffn_act_cfg": RELU, "conv_kernel_size": 1, "feat_transform_cfg": None,
            "kernel_init": False, "with_ffn": True, "feat_gather_stride": 1, "mask_transform_stride": 1,
            "kernel_updator_cfg": {},
        },
    )  # fmt: skip
    for name in ("in_channels", "out_channels"):
        if section.get(name, 256) != channels:
            raise UserError(
                f"KernelUpdateHead has {name}={section.get(name, 256)}; {channels} is needed, the width of "
                "the head before it"
            )
    need(section, o, num_ffn_fcs=2, conv_kernel_size=1, feat_gather_stride=1, mask_transform_stride=1)
    for name in ("act_cfg", "ffn_act_cfg"):
        _need_relu(section, name, o[name])
    updater = _updater(o["kernel_updator_cfg"])
    return {
        "heads": o["num_heads"],
        "feedforward": o["feedforward_channels"] if o["with_ffn"] else 0,
        "mask_layers": o["num_mask_fcs"],
        "transform": _transforms(o["feat_transform_cfg"]),
        "stage_dropout": float(o["dropout"]),
        **updater,
    }


def _updater(section: dict) -> dict:
    """Return the builder's options of a KernelUpdator."""
    o = take(
        section,
        {
            "feat_channels": 64, "gate_sigmoid": True, "gate_norm_act": False, "activate_out": False,
            "act_cfg": RELU,
        },
    )  # fmt: skip
    if type_of(section) != "KernelUpdator" or layer_norm_eps(section, 1e-5) != 1e-5:
        raise UserError(
            f"KernelUpdateHead has kernel_updator_cfg={section}; KernelUpdator with layer norm of eps 1e-5 "
            "is needed here"
        )
    _need_relu(section, "act_cfg", o["act_cfg"])
    width = section.get("in_channels", 256)
    others = {name: section.get(name) or width for name in ("feat_channels", "out_channels")}
    if set(others.values()) != {width}:
        raise UserError(f"KernelUpdator has in_channels={width}, {others}; one width for all is needed here")
    return {
        "kernel_channels": width,
        "gate_norm": bool(o["gate_norm_act"]),
        "gate_sigmoid": bool(o["gate_sigmoid"]),
        "activate_out": bool(o["activate_out"]),
    }


def _transforms(section: dict | None) -> bool:
    """Return whether a 1x1 convolution lies before a stage."""
    if section is None:
        return False
    section = {"type": "feat_transform_cfg", "act_cfg": RELU, **section}
    o = take(section, {"kernel_size": 1, "conv_cfg": None, "act_cfg": RELU, "bias": "auto"})
    need(section, o, kernel_size=1, act_cfg=None)
    if o["conv_cfg"] not in (None, {"type": "Conv2d"}, {"type": "Conv"}) or section.get("norm_cfg"):
        raise UserError(f"KernelUpdateHead has feat_transform_cfg={section}; a Conv2d alone is needed here")
    if o["bias"] not in ("auto", True):
        raise UserError("KernelUpdateHead has a feat_transform_cfg without bias; it needs one here")
    return True


def _need_relu(section: dict, name: str, activation: dict | None) -> None:
    if (activation or {}).get("type") != "ReLU":
        raise UserError(f"{type_of(section)} has {name}={activation}; ReLU is needed here")


def _rules() -> Rules:
    stage, ours = r"decode_head\.kernel_update_head\.(\d+)", r"stages.\1"
    places = {
        r"attention\.attn\.out_proj": "attention.project",
        r"attention\.attn": "attention",
        "attention_norm": "attention_norm",
        r"feat_transform\.conv": "transform",
        r"ffn\.layers\.0\.0": "feedforward.expand",
        r"ffn\.layers\.1": "feedforward.contract",
        "ffn_norm": "feedforward_norm",
        "mask_fcs": "mask_layers",
        "fc_mask": "mask_weights",
    }
    parts = {
        "dynamic_layer": "found",
        "input_layer": "kernel",
        "update_gate": "found_gate",
        "input_gate": "kernel_gate",
        "gate_norm": "product_norm",
        "norm_in": "found_gate_norm",
        "norm_out": "found_norm",
        "input_norm_in": "kernel_gate_norm",
        "input_norm_out": "kernel_norm",
        "fc_layer": "join",
        "fc_norm": "join_norm",
    }
    places |= {rf"kernel_update_conv\.{theirs}": f"update.{own}" for theirs, own in parts.items()}
    return [(rf"{stage}\.{theirs}\.", f"{ours}.{own}.") for theirs, own in places.items()]
