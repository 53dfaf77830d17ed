"""OpenMMLab's OCRHead after a coarse FCNHead: family ocrnet."""

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import aux_sections, norm_eps, type_of
from nets.importers.mmseg_heads import conv_rules, fcn_head, fcn_rules, shared_options, take_head
from nets.importers.mmseg_hrnet import hrnet_rules, hrnet_width
from nets.importers.placing import Rules

HEADS = ("OCRHead",)
# Parts of the object context block: theirs and ours.
PARTS = (
    (r"query_project\.(\d)", r"query.\1"),
    (r"key_project\.(\d)", r"key.\1"),
    ("value_project", "value"),
    ("out_project", "project"),
    ("bottleneck", "join"),
)


def _heads(model: dict) -> tuple[dict, dict]:
    """Return the coarse and the OCR head of a cascade.

    Raises:
        UserError: another cascade, or auxiliary heads.
    """
    heads = model["decode_head"]
    kinds = [type_of(head) for head in heads] if isinstance(heads, (list, tuple)) else [type_of(heads)]
    if kinds != ["FCNHead", "OCRHead"] or aux_sections(model):
        raise UserError(
            f"the decode heads are {kinds}; an FCNHead, an OCRHead and no auxiliary head are needed"
        )
    return heads[0], heads[1]


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    first, second = _heads(model)
    if first.get("num_classes") != second.get("num_classes"):
        raise UserError(
            f"FCNHead has {first.get('num_classes')} classes and OCRHead {second.get('num_classes')}; "
            "they must have the same"
        )
    coarse = fcn_head(first)
    o = take_head(second, {"ocr_channels": None, "scale": 1})
    if o["scale"] != 1 or o["input_transform"] not in (None, "resize_concat"):
        raise UserError(
            f"OCRHead has scale={o['scale']}, input_transform={o['input_transform']!r}; it cannot be imported"
        )
    index = o["in_index"]
    options = shared_options(second, o) | {
        "key_channels": o["ocr_channels"],
        "in_index": (index,) if isinstance(index, int) else tuple(index),
        "coarse_head": coarse,
    }
    if type_of(model["backbone"]) == "HRNet":
        options["backbone"] = hrnet_width(model["backbone"])
        options["backbone_options"] = {"norm_eps": norm_eps(model["backbone"])}
        rules = hrnet_rules()
    else:
        backbone = translate_backbone(model["backbone"])
        options |= {"backbone": backbone.name, "backbone_options": backbone.options}
        rules = backbone.rules
    context = r"decode_head\.1\.object_context_block"
    head_rules = [
        rule for theirs, ours in PARTS for rule in conv_rules(rf"{context}\.{theirs}", f"context.{ours}")
    ]
    return (
        "ocrnet",
        options,
        [
            *fcn_rules(r"decode_head\.0", "coarse_head.decoder", "coarse_head.classifier"),
            (r"decode_head\.1\.conv_seg\.", "classifier."),
            *conv_rules(r"decode_head\.1\.bottleneck", "describe"),
            *head_rules,
            *rules,
        ],
    )
