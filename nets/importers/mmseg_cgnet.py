"""OpenMMLab's FCNHead on CGNet: family cgnet."""

from nets.errors import UserError
from nets.importers.mmseg_config import last_head, need, norm_eps, take, type_of
from nets.importers.mmseg_heads import aux_options, aux_rules, fcn_rules, own_head
from nets.importers.placing import Rules

HEADS = ("FCNHead",)
BACKBONES = ("CGNet",)
ORDER = (0, 1, 2)


def _options(section: dict) -> dict:
    o = take(
        section,
        {
            "num_channels": (32, 64, 128), "num_blocks": (3, 21), "dilations": (2, 4), "reductions": (8, 16),
            "conv_cfg": None, "act_cfg": {"type": "PReLU"},
        },
    )  # fmt: skip
    need(section, o, conv_cfg=None)
    if (o["act_cfg"] or {}).get("type") != "PReLU":
        raise UserError(f"{type_of(section)} has act_cfg={o['act_cfg']}; PReLU is needed here")
    return {
        "backbone": "cgnet",
        "widths": tuple(o["num_channels"]),
        "blocks": tuple(o["num_blocks"]),
        "dilations": tuple(o["dilations"]),
        "reductions": tuple(o["reductions"]),
        "norm_eps": norm_eps({"norm_cfg": {"type": "BN"}} | section),
    }


def _convs(theirs: str, ours: str) -> Rules:
    return [
        (rf"{theirs}\.conv\.", f"{ours}.0."),
        (rf"{theirs}\.bn\.", f"{ours}.1.0."),
        (rf"{theirs}\.activate\.", f"{ours}.1.1."),
    ]


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    options = _options(model["backbone"]) | own_head(last_head(model), ORDER)
    rules = [
        *fcn_rules("decode_head", "decoder", "classifier"),
        *aux_rules(model),
        *_convs(r"backbone\.stem\.(\d)", r"backbone.stem.\1"),
        (r"backbone\.norm_prelu_(\d)\.", r"backbone.norms.\1."),
    ]
    for i in (0, 1):
        block, ours = rf"backbone\.level{i + 1}\.(\d+)", rf"backbone.stages.{i}.\1"
        rules += _convs(rf"{block}\.conv1x1", f"{ours}.enter")
        rules += [
            (rf"{block}\.f_loc\.", f"{ours}.local."),
            (rf"{block}\.f_sur\.", f"{ours}.surrounding."),
            (rf"{block}\.bn\.", f"{ours}.norm_act.0."),
            (rf"{block}\.activate\.", f"{ours}.norm_act.1."),
            (rf"{block}\.bottleneck\.", f"{ours}.reduce."),
            (rf"{block}\.f_glo\.fc\.", f"{ours}.gate."),
        ]
    return "cgnet", options | {"aux_heads": aux_options(model, ORDER)}, rules
