"""OpenMMLab's backbones: the options of ours that make the same network, and where each tensor goes."""

from collections.abc import Callable
from typing import NamedTuple

from nets.errors import UserError
from nets.importers.mmseg_config import look_up, need, norm_eps, take, type_of
from nets.importers.placing import Rules
from nets.importers.pyramid_backbones import Convert
from nets.importers.transformer_backbones import TRANSFORMERS

# Blocks of each stage, and what OpenMMLab dilates.
MOBILENETS_V3 = {
    "large": {
        "blocks": (1, 2, 3, 4, 2, 3),
        "strides": (1, 2, 2, 1, 1, 1),
        "dilations": (1, 1, 1, 2, 2, 4),
    },
    "small": {"blocks": (1, 2, 3, 2, 3), "strides": (2, 2, 1, 1, 1), "dilations": (1, 1, 2, 2, 4)},
}


class Backbone(NamedTuple):
    """A translated backbone.

    Attributes:
        name: ours.
        options: arguments of its class.
        rules: rename rules for the tensors under "backbone.".
        convert: makes of the checkpoint's tensors such as ours; None where they are.
    """

    name: str
    options: dict
    rules: Rules
    convert: Convert | None = None

    @property
    def converts(self) -> list[Convert]:
        """The conversion, if there is one, in a list."""
        return [] if self.convert is None else [self.convert]


def resnet(backbone: dict) -> Backbone:
    """ResNet, its variants with a deep stem (V1c) and averaging shortcuts (V1d), ResNeXt, ResNeSt."""
    kind = type_of(backbone)
    known = {
        "depth": 50, "stem_channels": 64, "base_channels": 64, "num_stages": 4, "strides": (1, 2, 2, 2),
        "dilations": (1, 1, 1, 1), "out_indices": (0, 1, 2, 3), "style": "pytorch",
        "deep_stem": kind in ("ResNetV1c", "ResNetV1d", "ResNeSt"),
        "avg_down": kind in ("ResNetV1d", "ResNeSt"), "multi_grid": None,
        "contract_dilation": False,
    }  # fmt: skip
    if kind in ("ResNeXt", "ResNeSt"):
        known |= {"groups": 1, "base_width": 4}
    if kind == "ResNeSt":
        known |= {"radix": 2, "reduction_factor": 4, "avg_down_stride": True}
    o = take(backbone, known)
    name = _resnet_name(kind, o)
    if o["base_channels"] != 64 or (not o["deep_stem"] and o["stem_channels"] != 64):
        raise UserError(
            f"{kind} has base_channels={o['base_channels']}, stem_channels={o['stem_channels']}; "
            "64 is needed here (the stem of a deep stem may differ)"
        )
    used = max(o["out_indices"]) + 1
    stages = min(o["num_stages"], used)
    options = {
        "stem": "deep" if o["deep_stem"] else "standard",
        "stem_channels": o["stem_channels"],
        "avg_down": o["avg_down"],
        "strides": tuple(o["strides"][:stages]),
        "dilations": tuple(o["dilations"][:stages]),
        "contract_dilation": o["contract_dilation"],
        "multi_grid": tuple(o["multi_grid"]) if o["multi_grid"] and stages == o["num_stages"] else None,
        "stride_in": "conv1" if o["style"] == "caffe" else "conv2",
        "out_stages": tuple(o["out_indices"]),
        "norm_eps": norm_eps(backbone),
    }
    # The deep stem's last norm stands in timm beside the stem, not in it.
    stem = [(r"backbone\.stem\.7\.", "backbone.body.bn1."), (r"backbone\.stem\.", "backbone.body.conv1.")]
    return Backbone(name, options, [*_unused(used, 4), *stem, (r"backbone\.", "backbone.body.")])


def _resnet_name(kind: str, options: dict) -> str:
    """Return timm's name of a ResNet, ResNeXt or ResNeSt."""
    depth = options["depth"]
    if kind == "ResNeXt":
        return f"resnext{depth}_{options['groups']}x{options['base_width']}d"
    if kind != "ResNeSt":
        return f"resnet{depth}"
    usual = {"groups": 1, "radix": 2, "reduction_factor": 4, "avg_down_stride": True}
    names = {50: "resnest50d", 101: "resnest101e", 200: "resnest200e"}
    if any(options[key] != value for key, value in usual.items()) or depth not in names:
        raise UserError(f"ResNeSt has depth={depth} or a split attention of its own; {usual} is here")
    return names[depth]


def _unused(used: int, stages: int) -> Rules:
    """Return rules that drop the stages behind the last one whose map is given; ours does not have them."""
    return [(rf"backbone\.layer{i + 1}\.", None) for i in range(used, stages)]


def mobilenet_v2(backbone: dict) -> Backbone:
    """MobileNetV2."""
    o = take(
        backbone,
        {
            "widen_factor": 1.0, "strides": (1, 2, 2, 2, 1, 2, 1), "dilations": (1,) * 7,
            "out_indices": (1, 2, 4, 6), "act_cfg": {"type": "ReLU6"},
        },
    )  # fmt: skip
    if o["act_cfg"] != {"type": "ReLU6"} and o["act_cfg"] != {"type": "ReLU6", "inplace": True}:
        raise UserError(f"MobileNetV2 has act_cfg={o['act_cfg']}; ReLU6 is needed here")
    options = {
        "strides": tuple(o["strides"]),
        "dilations": tuple(o["dilations"]),
        "out_stages": tuple(o["out_indices"]),
        "norm_eps": norm_eps(backbone),
    }
    body = "backbone.body."
    rules: Rules = [
        *_unused(max(o["out_indices"]) + 1, 7),
        (r"backbone\.conv1\.conv\.", f"{body}conv_stem."),
        (r"backbone\.conv1\.bn\.", f"{body}bn1."),
        (r"backbone\.layer1\.0\.conv\.0\.conv\.", f"{body}blocks.0.0.conv_dw."),
        (r"backbone\.layer1\.0\.conv\.0\.bn\.", f"{body}blocks.0.0.bn1."),
        (r"backbone\.layer1\.0\.conv\.1\.conv\.", f"{body}blocks.0.0.conv_pw."),
        (r"backbone\.layer1\.0\.conv\.1\.bn\.", f"{body}blocks.0.0.bn2."),
    ]
    for i in range(1, 7):  # stages 2 to 7 expand, filter and project
        for j, conv in enumerate(("conv_pw", "conv_dw", "conv_pwl")):
            place = rf"{body}blocks.{i}.\1."
            rules.append((rf"backbone\.layer{i + 1}\.(\d+)\.conv\.{j}\.conv\.", f"{place}{conv}."))
            rules.append((rf"backbone\.layer{i + 1}\.(\d+)\.conv\.{j}\.bn\.", f"{place}bn{j + 1}."))
    return Backbone(f"mobilenetv2_{round(100 * o['widen_factor']):03d}", options, rules)


def mobilenet_v3(backbone: dict) -> Backbone:
    """MobileNetV3, dilated to stride 8 as OpenMMLab has it in any case."""
    o = take(backbone, {"arch": "small", "conv_cfg": None, "out_indices": (0, 1, 12), "reduction_factor": 1})
    need(backbone, o, conv_cfg=None, reduction_factor=1)
    options = look_up(backbone, MOBILENETS_V3, o["arch"]) | {
        "out_layers": tuple(o["out_indices"]),
        "norm_eps": norm_eps(backbone),
    }
    blocks = options.pop("blocks")
    rules: Rules = [
        (r"backbone\.layer0\.conv\.", "backbone.body.conv_stem."),
        (r"backbone\.layer0\.bn\.", "backbone.body.bn1."),
        (rf"backbone\.layer{sum(blocks) + 1}\.conv\.", f"backbone.body.blocks.{len(blocks)}.0.conv."),
        (rf"backbone\.layer{sum(blocks) + 1}\.bn\.", f"backbone.body.blocks.{len(blocks)}.0.bn1."),
    ]
    places = [(i, j) for i, count in enumerate(blocks) for j in range(count)]
    for number, (i, j) in enumerate(places, start=1):
        # The first block does not expand.
        names = ("depthwise", "linear") if number == 1 else ("expand", "depthwise", "linear")
        ours = ("conv_dw", "conv_pw") if number == 1 else ("conv_pw", "conv_dw", "conv_pwl")
        theirs, place = rf"backbone\.layer{number}\.", f"backbone.body.blocks.{i}.{j}."
        for k, (name, own) in enumerate(zip(names, ours, strict=True), start=1):
            rules.append((rf"{theirs}{name}_conv\.conv\.", f"{place}{own}."))
            rules.append((rf"{theirs}{name}_conv\.bn\.", f"{place}bn{k}."))
        rules.append((rf"{theirs}se\.conv1\.conv\.", f"{place}se.conv_reduce."))
        rules.append((rf"{theirs}se\.conv2\.conv\.", f"{place}se.conv_expand."))
    return Backbone(f"tf_mobilenetv3_{o['arch']}_100", options, rules)


TRANSLATORS: dict[str, Callable[[dict], tuple]] = {
    "ResNet": resnet,
    "ResNetV1c": resnet,
    "ResNetV1d": resnet,
    "ResNeXt": resnet,
    "ResNeSt": resnet,
    "MobileNetV2": mobilenet_v2,
    "MobileNetV3": mobilenet_v3,
    **TRANSFORMERS,
}


def translate_backbone(backbone: dict) -> Backbone:
    """Return a configuration's backbone in our words.

    Raises:
        UserError: a backbone that is not here, or options that ours does not have.
    """
    kind = type_of(backbone)
    if kind not in TRANSLATORS:
        raise UserError(
            f"no network here has OpenMMLab's backbone {kind!r}; there are: {', '.join(sorted(TRANSLATORS))}"
        )
    return Backbone(*TRANSLATORS[kind](backbone))


def backbone_options(backbone: dict) -> tuple[str, dict]:
    """Return the name of our backbone and the arguments of its class (`backbone_options` of the builders)."""
    translated = translate_backbone(backbone)
    return translated.name, translated.options


def backbone_rules(backbone: dict) -> Rules:
    """Return the rename rules of a backbone's tensors."""
    return translate_backbone(backbone).rules
