"""OpenMMLab's FCNHead on ERFNet: family erfnet."""

from nets.importers.mmseg_config import last_head, take
from nets.importers.mmseg_heads import aux_options, aux_rules, fcn_rules, own_head
from nets.importers.placing import Rules

HEADS = ("FCNHead",)
BACKBONES = ("ERFNet",)
ORDER = (0,)


def _options(section: dict) -> dict:
    o = take(
        section,
        {
            "in_channels": 3, "enc_downsample_channels": (16, 64, 128), "enc_stage_non_bottlenecks": (5, 8),
            "enc_non_bottleneck_dilations": (2, 4, 8, 16), "enc_non_bottleneck_channels": (64, 128),
            "dec_upsample_channels": (64, 16), "dec_stages_non_bottleneck": (2, 2),
            "dec_non_bottleneck_channels": (64, 16), "dropout_ratio": 0.1,
            # Never handed on to the layers.
            "conv_cfg": None, "act_cfg": None,
        },
    )  # fmt: skip
    return {
        "backbone": "erfnet",
        "head": "conv",
        "widths": tuple(o["enc_downsample_channels"]),
        "blocks": tuple(o["enc_stage_non_bottlenecks"]),
        "dilations": tuple(o["enc_non_bottleneck_dilations"]),
        "up_widths": tuple(o["dec_non_bottleneck_channels"]),
        "up_blocks": tuple(o["dec_stages_non_bottleneck"]),
        "first_filters": o["enc_downsample_channels"][0] - o["in_channels"],
        "early_dropout": o["dropout_ratio"],
        "dropout": o["dropout_ratio"],
    }


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    head = own_head(last_head(model), ORDER)
    head["head_dropout"] = head.pop("dropout")
    options = _options(model["backbone"]) | head | {"aux_heads": aux_options(model, ORDER)}
    part, ours = r"backbone\.(encoder|decoder)\.(\d+)", r"backbone.\1.\2"
    rules = [
        *fcn_rules("decode_head", "decoder", "classifier"),
        *aux_rules(model),
        (rf"{part}\.convs_layers\.", f"{ours}.branch."),
        (rf"{part}\.conv\.", f"{ours}.conv."),
        (rf"{part}\.bn\.", f"{ours}.norm."),
    ]
    return "erfnet", options, rules
