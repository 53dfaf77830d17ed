"""OpenMMLab's PointHead behind FPNHead: family pointrend."""

from torch import Tensor

from nets.errors import UserError
from nets.importers import mmseg_sem_fpn
from nets.importers.mmseg_config import need_relu, take, type_of
from nets.importers.mmseg_heads import dropout_rate
from nets.importers.placing import Rules

HEADS = ("PointHead",)
TESTING = {"subdivision_steps": 2, "subdivision_num_points": 8196, "scale_factor": 2}


def translate(model: dict, keys: list[str]) -> tuple:
    """Return family, builder options, rename rules and conversions of a configuration's model."""
    heads = model["decode_head"]
    if not isinstance(heads, (list, tuple)) or len(heads) != 2 or type_of(heads[0]) != "FPNHead":
        raise UserError("PointHead is needed behind one FPNHead, in the list decode_head")
    _, options, rules, *converts = mmseg_sem_fpn.translate(
        {**model, "decode_head": heads[0]}, [_coarse(key) for key in keys]
    )
    if options["aux_heads"]:
        raise UserError("PointHead is needed without auxiliary heads, which read the pyramid there")
    if bool(heads[1].get("align_corners")) != options["align_corners"]:
        raise UserError("FPNHead and PointHead differ in align_corners; the same is needed here")
    options |= _points(heads[1], model)
    return "pointrend", options, [*_rules(), *rules], _of_coarse, *converts


def _coarse(key: str) -> str:
    """Return a tensor's name as in a network without points."""
    return key.replace("decode_head.0.", "decode_head.", 1) if key.startswith("decode_head.0.") else key


def _of_coarse(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_coarse(key): value for key, value in state_dict.items()}


def _points(head: dict, model: dict) -> dict:
    """Return the builder's options of a PointHead."""
    o = take(
        head,
        {
            "channels": None, "dropout_ratio": 0.1, "in_index": -1, "align_corners": False, "num_fcs": 3,
            "coarse_pred_each_layer": True, "input_transform": None, "conv_cfg": {"type": "Conv1d"},
            "act_cfg": {"type": "ReLU"},
        },
    )  # fmt: skip
    need_relu(head, {"act_cfg": o["act_cfg"]})
    if head.get("norm_cfg") or o["conv_cfg"] != {"type": "Conv1d"}:
        raise UserError("PointHead has norms or other convolutions; Conv1d without norm is needed here")
    if not isinstance(o["in_index"], (list, tuple)):
        raise UserError(f"PointHead has in_index={o['in_index']!r}; a list of maps is needed")
    testing, training = TESTING | (model.get("test_cfg") or {}), model.get("train_cfg") or {}
    if testing["scale_factor"] != int(testing["scale_factor"]):
        raise UserError(f"test_cfg has scale_factor={testing['scale_factor']}; a whole number is needed here")
    return {
        "point_maps": tuple(o["in_index"]),
        "point_channels": o["channels"],
        "point_layers": o["num_fcs"],
        "coarse_each": bool(o["coarse_pred_each_layer"]),
        "point_dropout": dropout_rate(o),
        "points": training.get("num_points", 2048),
        "subdivisions": testing["subdivision_steps"],
        "subdivision_points": testing["subdivision_num_points"],
        "scale": int(testing["scale_factor"]),
    }


def _rules() -> Rules:
    return [
        (r"decode_head\.1\.fcs\.(\d+)\.conv\.", r"point_head.layers.\1."),
        (r"decode_head\.1\.fc_seg\.", "point_head.classifier."),
    ]
