"""OpenMMLab's DDRHead on DDRNet: family ddrnet."""

from nets.importers.mmseg_config import last_head, need_relu, need_usual_norm, take
from nets.importers.mmseg_heads import conv_rules, dropout_rate, take_head
from nets.importers.placing import Rules

HEADS = ("DDRHead",)
RELU = {"type": "ReLU"}


def block_rules(theirs: str, ours: str) -> Rules:
    """Return the rules of a residual block: the checkpoint's pattern and our name, without the dot."""
    rules: Rules = [
        (rf"{theirs}\.downsample\.0\.", f"{ours}.shortcut.conv."),
        (rf"{theirs}\.downsample\.1\.", f"{ours}.shortcut.norm."),
        *conv_rules(rf"{theirs}\.downsample", f"{ours}.shortcut"),
    ]
    for i in range(3):
        rules += conv_rules(rf"{theirs}\.conv{i + 1}", f"{ours}.convs.{i}")
    return rules


def stem_rules() -> Rules:
    """Return the rules of the stem."""
    block = block_rules(r"backbone\.stem\.([24])\.(\d)", r"backbone.stem.\1.\2")
    return [*block, *conv_rules(r"backbone\.stem\.([01])", r"backbone.stem.\1")]


def pyramid_rules() -> Rules:
    """Return the rules of DAPPM and PAPPM."""
    theirs, ours = r"backbone\.spp", "backbone.pyramid"
    rules = conv_rules(rf"{theirs}\.scales\.0", f"{ours}.project")
    for i in range(1, 5):
        rules += conv_rules(rf"{theirs}\.scales\.{i}\.1", f"{ours}.scales.{i - 1}.1")
    return [
        *rules,
        *conv_rules(rf"{theirs}\.processes\.(\d)", rf"{ours}.convs.\1"),
        *conv_rules(rf"{theirs}\.processes", f"{ours}.convs"),
        *conv_rules(rf"{theirs}\.compression", f"{ours}.join"),
        *conv_rules(rf"{theirs}\.shortcut", f"{ours}.shortcut"),
    ]


def backbone_rules() -> Rules:
    """Return the rules of DDRNet without its head."""
    rules = [*stem_rules(), *pyramid_rules()]
    for i in range(2):
        stage = f"backbone.stages.{i}"
        for theirs, ours in (("context", "deep"), ("spatial", "fine")):
            rules += block_rules(rf"backbone\.{theirs}_branch_layers\.{i}\.(\d)", rf"{stage}.{ours}.\1")
        rules += conv_rules(rf"backbone\.compression_{i + 1}", f"{stage}.compress")
    for theirs, ours in (("context", "deep"), ("spatial", "fine")):
        rules += block_rules(rf"backbone\.{theirs}_branch_layers\.2\.(\d)", rf"backbone.{ours}_last.\1")
    return [
        *rules,
        *conv_rules(r"backbone\.down_1", "backbone.stages.0.down.0"),
        *conv_rules(r"backbone\.down_2\.(\d)", r"backbone.stages.1.down.\1"),
    ]


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    section, head = model["backbone"], last_head(model)
    o = take(
        section,
        {"channels": 32, "ppm_channels": 128, "align_corners": False, "act_cfg": RELU, "conv_cfg": None},
    )
    h = take_head(head, {})
    need_relu(section, o)
    for each in (section, head):
        need_usual_norm(each)
    options = {
        "backbone": "23slim" if o["channels"] == 32 else "23",
        "width": o["channels"],
        "pyramid_channels": o["ppm_channels"],
        "inner_align_corners": bool(o["align_corners"]),
        "channels": h["channels"],
        "dropout": dropout_rate(h),
        "align_corners": bool(h["align_corners"]),
        "aux": True,
    }
    rules = [
        *backbone_rules(),
        (r"decode_head\.conv_seg\.", "classifier."),
        *conv_rules(r"decode_head\.head\.0", "decoder.conv"),
        (r"decode_head\.head\.1\.", "decoder.norm."),
        (r"decode_head\.aux_cls_seg\.", "aux_heads.0.classifier."),
        *conv_rules(r"decode_head\.aux_head\.0", "aux_heads.0.decoder.conv"),
        (r"decode_head\.aux_head\.1\.", "aux_heads.0.decoder.norm."),
    ]
    return "ddrnet", options, rules
