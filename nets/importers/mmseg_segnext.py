"""OpenMMLab's LightHamHead on MSCAN: family segnext."""

from nets.errors import UserError
from nets.importers.mmseg_backbones import translate_backbone
from nets.importers.mmseg_config import last_head
from nets.importers.mmseg_heads import dropout_rate, take_head
from nets.importers.placing import Rules

HEADS = ("LightHamHead",)
BACKBONES = ("MSCAN",)
HAM = {"MD_S": 1, "MD_R": 64, "train_steps": 6, "eval_steps": 7, "inv_t": 100, "rand_init": True}


def translate(model: dict, keys: list[str]) -> tuple[str, dict, Rules]:
    """Return family, builder options and rename rules of a configuration's model."""
    backbone = translate_backbone(model["backbone"])
    head = last_head(model)
    o = take_head(head, {"ham_channels": 512, "ham_kwargs": {}})
    ham, norm = HAM | (o["ham_kwargs"] or {}), head.get("norm_cfg") or {}
    if set(ham) - set(HAM) or not ham["rand_init"] or norm.get("type") != "GN":
        raise UserError(
            f"LightHamHead has ham_kwargs={ham}, norm_cfg={norm}; random bases and group norm are needed here"
        )
    if list(o["in_index"]) != [1, 2, 3] or model.get("auxiliary_head"):
        raise UserError("LightHamHead is needed on maps 1, 2 and 3 and without auxiliary heads")
    options = {
        "backbone": backbone.name.removeprefix("mscan_"),
        "decoder_channels": o["channels"],
        "ham_channels": o["ham_channels"],
        "ham_groups": ham["MD_S"],
        "ham_rank": ham["MD_R"],
        "train_steps": ham["train_steps"],
        "eval_steps": ham["eval_steps"],
        "norm_groups": norm["num_groups"],
        "norm_eps": float(norm.get("eps", 1e-5)),
        "dropout": dropout_rate(o),
        "align_corners": bool(o["align_corners"]),
        **backbone.options,
    }
    rules: Rules = [
        (r"decode_head\.conv_seg\.", "classifier."),
        (r"decode_head\.(squeeze|align)\.conv\.", r"decoder.\1.conv."),
        (r"decode_head\.(squeeze|align)\.gn\.", r"decoder.\1.norm."),
        (r"decode_head\.hamburger\.ham_in\.conv\.", "decoder.hamburger.enter."),
        (r"decode_head\.hamburger\.ham_out\.conv\.", "decoder.hamburger.leave.conv."),
        (r"decode_head\.hamburger\.ham_out\.gn\.", "decoder.hamburger.leave.norm."),
        *backbone.rules,
    ]
    return "segnext", options, rules
