"""OpenMMLab's PIDHead on PIDNet: family pidnet."""

from nets.errors import UserError
from nets.importers.mmseg_config import last_head, need_relu, need_usual_norm, take
from nets.importers.mmseg_ddrnet import block_rules, pyramid_rules, stem_rules
from nets.importers.mmseg_heads import conv_rules, dropout_rate, take_head
from nets.importers.placing import Rules

HEADS = ("PIDHead",)
RELU = {"type": "ReLU"}
BRANCHES = {"i": "deep", "p": "fine", "d": "boundary"}
TOLD = {"compression": "compress", "diff": "tell"}


def backbone_rules() -> Rules:
    """Return the rules of PIDNet without its heads."""
    rules = [*stem_rules(), *pyramid_rules()]
    for theirs, ours in BRANCHES.items():
        layers = rf"backbone\.{theirs}_branch_layers\.(\d)"
        if theirs == "d":  # single blocks, of which some stand in a list of one
            rules += block_rules(rf"{layers}\.\d", rf"backbone.{ours}.\1")
            rules += block_rules(layers, rf"backbone.{ours}.\1")
        else:
            rules += block_rules(rf"{layers}\.(\d)", rf"backbone.{ours}.\1.\2")
    for i in range(2):
        for theirs, ours in TOLD.items():
            rules += conv_rules(rf"backbone\.{theirs}_{i + 1}", f"backbone.{ours}.{i}")
        rules += conv_rules(rf"backbone\.pag_{i + 1}\.f_p", f"backbone.guide.{i}.fine")
        rules += conv_rules(rf"backbone\.pag_{i + 1}\.f_i", f"backbone.guide.{i}.deep")
    rules += conv_rules(r"backbone\.dfm\.f_p", "backbone.fuse.fine")
    rules += conv_rules(r"backbone\.dfm\.f_i", "backbone.fuse.deep")
    rules += conv_rules(r"backbone\.dfm\.conv", "backbone.fuse.conv")
    return rules


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    section, head = model["backbone"], last_head(model)
    o = take(
        section,
        {
            "channels": 64, "ppm_channels": 96, "num_stem_blocks": 2, "num_branch_blocks": 3,
            "align_corners": False, "act_cfg": RELU, "conv_cfg": None,
        },
    )  # fmt: skip
    h = take_head(head, {})
    need_relu(section, o)
    for each in (section, head):
        need_usual_norm(each)
    if head.get("in_channels") != 4 * o["channels"]:
        raise UserError(
            f"PIDHead has in_channels={head.get('in_channels')}; {4 * o['channels']}, four times the "
            "backbone's channels, is needed here"
        )
    options = {
        "backbone": "l" if o["num_stem_blocks"] != 2 else "s" if o["channels"] == 32 else "m",
        "width": o["channels"],
        "pyramid_channels": o["ppm_channels"],
        "stem_blocks": o["num_stem_blocks"],
        "deep_blocks": o["num_branch_blocks"],
        "channels": h["channels"],
        "dropout": dropout_rate(h),
        "align_corners": bool(h["align_corners"]),
        "inner_align_corners": bool(o["align_corners"]),
        "aux": True,
    }
    rules = backbone_rules()
    heads = {"i_head": "decoder", "p_head": "aux_heads.0.decoder", "d_head": "boundary_head.decoder"}
    for theirs, ours in heads.items():
        rules += conv_rules(rf"decode_head\.{theirs}\.conv", f"{ours}.conv")
        rules.append((rf"decode_head\.{theirs}\.norm\.", f"{ours}.norm."))
    rules += [
        (r"decode_head\.conv_seg\.", "classifier."),
        (r"decode_head\.p_cls_seg\.", "aux_heads.0.classifier."),
        (r"decode_head\.d_cls_seg\.", "boundary_head.classifier."),
    ]
    return "pidnet", options, rules
