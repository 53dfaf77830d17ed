"""OpenMMLab's DPTHead on a vision transformer: family dpt."""

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head, need, norm_eps
from nets.importers.mmseg_heads import conv_rules, dropout_rate, take_head
from nets.importers.placing import Rules
from nets.importers.plain_backbones import as_built, vit_options

HEADS = ("DPTHead",)
BACKBONES = ("VisionTransformer",)
READOUTS = {"ignore": "ignore", "add": "add", "project": "project"}
# Whatever the size of a patch is.
SCALES = (4.0, 2.0, 1.0, 0.5)


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    section, head = as_built(model["backbone"], keys), last_head(model)
    o = take_head(
        head,
        {
            "embed_dims": 768, "post_process_channels": (96, 192, 384, 768), "readout_type": "ignore",
            "patch_size": 16, "expand_channels": False,
        },
    )  # fmt: skip
    need(head, o, in_index=(0, 1, 2, 3), input_transform="multiple_select", expand_channels=False)
    if model.get("neck") or not section.get("output_cls_token") or o["readout_type"] not in READOUTS:
        raise UserError(
            f"DPTHead has readout_type={o['readout_type']!r}; {', '.join(READOUTS)} are here, on a "
            "VisionTransformer with output_cls_token=True and without a neck"
        )
    if model.get("auxiliary_head"):
        raise UserError("DPTHead is needed without auxiliary heads, which cannot read maps with class tokens")
    backbone = translate_backbone(section | {"output_cls_token": False})
    norm = head.get("norm_cfg", {"type": "BN"})
    options = {
        "backbone": backbone.name.removeprefix("vit_"),
        "readout": o["readout_type"],
        "layers": backbone.options["blocks"],
        "patch": backbone.options["patch"],
        "widths": tuple(o["post_process_channels"]),
        "channels": o["channels"],
        "norm": bool(norm),
        "dropout": dropout_rate(o),
        "unpad": False,
        "align_corners": bool(o["align_corners"]),
        "norm_eps": norm_eps({"norm_cfg": norm}) if norm else 1e-5,
        "scales": SCALES,
        "backbone_options": vit_options(backbone.options),
    }
    return "dpt", options, [*_rules(), *backbone.rules], *backbone.converts


def _rules() -> Rules:
    """Return the rules of the head; its fusions are numbered from the deepest on."""
    blocks = r"decode_head\.reassemble_blocks"
    rules: Rules = [
        (rf"{blocks}\.readout_projects\.(\d+)\.0\.", r"backbone.projects.\1."),
        (rf"{blocks}\.projects\.(\d+)\.conv\.", r"head.reassemble.\1.0."),
        (rf"{blocks}\.resize_layers\.(\d+)\.", r"head.reassemble.\1.1."),
        (r"decode_head\.convs\.(\d+)\.conv\.", r"head.reassemble.\1.2."),
        *conv_rules(r"decode_head\.project", "head.smooth"),
        (r"decode_head\.conv_seg\.", "head.classifier."),
    ]
    for i in range(4):
        theirs, ours = rf"decode_head\.fusion_blocks\.{i}", f"head.fusions.{3 - i}"
        rules.append((rf"{theirs}\.project\.conv\.", f"{ours}.project."))
        for unit, name in (("res_conv_unit1", "refine"), ("res_conv_unit2", "smooth")):
            rules += conv_rules(rf"{theirs}\.{unit}\.conv1", f"{ours}.{name}.first")
            rules += conv_rules(rf"{theirs}\.{unit}\.conv2", f"{ours}.{name}.second")
    return rules
