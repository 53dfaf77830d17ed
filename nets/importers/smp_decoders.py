"""Decoders of segmentation_models.pytorch in our words, but for PSPNet and DeepLab.

Each reader takes a `Source` and returns a `Decoder`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from nets.errors import UserError
from nets.importers.placing import Rules
from nets.importers.smp_encoders import DEPTH, Encoder


@dataclass(frozen=True)
class Source:
    """What is known of a network of segmentation_models.pytorch.

    Attributes:
        state_dict: its weights.
        encoder: as `read_encoder` finds it.
        depth: the encoder's maps from stride 2 on.
        config: arguments of its class as they are saved with it, where they are.
    """

    state_dict: dict[str, Tensor]
    encoder: Encoder
    depth: int = DEPTH
    config: dict = field(default_factory=dict)

    def has(self, pattern: str) -> bool:
        """Return whether a tensor's name begins with a pattern."""
        return any(re.match(pattern, key) for key in self.state_dict)

    def width(self, key: str, axis: int = 0) -> int:
        """Return a side of a tensor."""
        return self.state_dict[key].shape[axis]


class Decoder(NamedTuple):
    """What a reader returns.

    Attributes:
        options: of our family, without those of the encoder.
        rules: for the decoder's names.
        maps: how many of the encoder's deepest maps are used.
        output_stride: of the encoder in pixels.
        convert: changes of the decoder's weights before they are renamed.
    """

    options: dict
    rules: Rules
    maps: int = DEPTH
    output_stride: int = 32
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None


def conv_rules(theirs: str, ours: str) -> Rules:
    """Return rules for a convolution, numbered 0, and the norm behind it, numbered 1."""
    return [(rf"{theirs}\.0\.", f"{ours}.conv."), (rf"{theirs}\.1\.", f"{ours}.norm.")]


def count(source: dict[str, Tensor], pattern: str) -> int:
    """Return how many numbers a pattern's group has among the names; they begin at 0."""
    found = {int(match[1]) for key in source if (match := re.match(pattern, key))}
    return max(found, default=-1) + 1


def _enlarge(source: Source) -> dict:
    mode = source.config.get("decoder_interpolation", "nearest")
    return {"enlarge": mode}


def _block_rules(theirs: str, ours: str, *, last: bool = False) -> Rules:
    """Return the rules of a block of two convolutions, with or without attention."""
    before = None if last else f"{ours}.before."
    rules = [rule for i in (1, 2) for rule in conv_rules(rf"{theirs}\.conv{i}", f"{ours}.{i - 1}")]
    for i, part in ((1, before), (2, f"{ours}.behind.")):
        rules += [
            (rf"{theirs}\.attention{i}\.attention\.cSE\.", part and f"{part}channel."),
            (rf"{theirs}\.attention{i}\.attention\.sSE\.0\.", part and f"{part}pixel."),
        ]
    return rules


def _center_rules() -> Rules:
    return [rule for i in (0, 1) for rule in conv_rules(rf"decoder\.center\.{i}", f"decoder.center.{i}")]


def _form(source: Source, first_norm: str) -> dict:
    """Return the options that U-Nets share."""
    return {
        "center": source.has(r"decoder\.center\."),
        "scse": source.has(r"decoder\.blocks\..*\.attention2\."),
        "norm": first_norm in source.state_dict,
        **_enlarge(source),
    }


def unet(source: Source) -> Decoder:
    """Unet."""
    rules = _center_rules()
    widths = [source.width(f"decoder.blocks.{i}.conv1.0.weight") for i in range(source.depth)]
    for i in range(source.depth):
        rules += _block_rules(rf"decoder\.blocks\.{i}", f"decoder.blocks.{i}", last=i == source.depth - 1)
    form = _form(source, "decoder.blocks.0.conv1.1.weight")
    return Decoder({"decoder_channels": tuple(widths), **form}, rules)


def unet_plusplus(source: Source) -> Decoder:
    """UnetPlusPlus."""
    rules: Rules = [(r"decoder\.center\.", None)]  # which it has on VGG, and does not use
    depth = source.encoder.count_maps(source.depth) - 1
    widths = [source.width(f"decoder.blocks.x_0_{i}.conv1.0.weight") for i in range(source.depth)]
    for i in range(depth):
        for first in range(i + 1):
            node = f"decoder.nodes.{depth - 1 - i}_{i - first + 1}"
            rules += _block_rules(rf"decoder\.blocks\.x_{first}_{i}", node)
    for i in range(depth, source.depth):
        rules += _block_rules(
            rf"decoder\.blocks\.x_0_{i}", f"decoder.tail.{i - depth}", last=i == source.depth - 1
        )
    form = _form(source, "decoder.blocks.x_0_0.conv1.1.weight")
    del form["center"]
    return Decoder({"decoder_channels": tuple(widths), "nodes": "encoder", **form}, rules)


def linknet(source: Source) -> Decoder:
    """Linknet."""
    options = {"version": "smp", "norm": "decoder.blocks.0.block.0.1.weight" in source.state_dict}
    theirs, ours = r"decoder\.blocks\.(\d+)\.block", r"decoder.blocks.\1"
    return Decoder(options, [r for i in range(3) for r in conv_rules(rf"{theirs}\.{i}", rf"{ours}.{i}")])


def manet(source: Source) -> Decoder:
    """MAnet."""
    names = {"top_conv": "key", "center_conv": "query", "bottom_conv": "value", "out_conv": "project"}
    rules: Rules = [(rf"decoder\.center\.{a}\.", f"decoder.center.{b}.") for a, b in names.items()]
    for i in range(source.depth):
        theirs, ours = rf"decoder\.blocks\.{i}", f"decoder.blocks.{i}"
        fuses = f"decoder.blocks.{i}.hl_conv.0.0.weight" in source.state_dict
        for j in (0, 1):
            rules += conv_rules(rf"{theirs}\.hl_conv\.{j}", f"{ours}.reduce.{j}")
            rules += conv_rules(rf"{theirs}\.conv{j + 1}", f"{ours}.convs.{j}" if fuses else f"{ours}.{j}")
        rules += [
            (rf"{theirs}\.SE_ll\.", f"{ours}.fine_weights."),
            (rf"{theirs}\.SE_hl\.", f"{ours}.coarse_weights."),
        ]
    options = {
        "decoder_channels": tuple(
            source.width(f"decoder.blocks.{i}.conv1.0.weight") for i in range(source.depth)
        ),
        "key_channels": source.width("decoder.center.top_conv.weight"),
        "attention": "joint",
        "norm": "decoder.blocks.0.conv1.1.weight" in source.state_dict,
        **_enlarge(source),
    }
    return Decoder(options, rules)


def pan(source: Source, output_stride: int | None) -> Decoder:
    """PAN; its output stride is 16 unless something else is said."""
    places = {
        "fpa.branch1.1": "attend.mean.1",
        "fpa.mid.0": "attend.project",
        "fpa.down1.1": "attend.halve.0.conv",
        "fpa.down2.1": "attend.halve.1.conv",
        "fpa.down3.1": "attend.halve.2.conv",
        "fpa.down3.2": "attend.convs.2",
        "fpa.conv2": "attend.convs.1",
        "fpa.conv1": "attend.convs.0",
    }
    gates = source.depth - 2
    for i in range(gates):
        places[f"gau{gates - i}.conv1.1"] = f"blocks.{i}.weights.1"
        places[f"gau{gates - i}.conv2"] = f"blocks.{i}.reduce"
    rules: Rules = []
    for theirs, ours in places.items():
        rules += [
            (rf"decoder\.{re.escape(theirs)}\.conv\.", f"decoder.{ours}.conv."),
            (rf"decoder\.{re.escape(theirs)}\.bn\.", f"decoder.{ours}.norm."),
        ]
    options = {
        "version": "smp",
        "channels": source.width("decoder.fpa.mid.0.conv.weight"),
        "enlarge": source.config.get("decoder_interpolation", "bilinear"),
    }
    stride = output_stride or source.config.get("encoder_output_stride", 16)
    options["output_stride"] = stride
    # The stem's map is not used.
    return Decoder(options, rules, source.depth - 1, stride)


def fpn(source: Source) -> Decoder:
    """FPN; four levels, the deepest of which is called p5."""
    rules: Rules = [(r"decoder\.p5\.", "decoder.pyramid.laterals.3.conv.")]
    rules += [(rf"decoder\.p{i + 2}\.skip_conv\.", f"decoder.pyramid.laterals.{i}.conv.") for i in range(3)]
    for i in range(4):
        theirs, ours = rf"decoder\.seg_blocks\.{i}\.block\.(\d+)\.block", rf"decoder.levels.{3 - i}.\1"
        rules += conv_rules(theirs, ours)
    width = source.width("decoder.seg_blocks.0.block.0.block.0.weight")
    options = {
        "pyramid_channels": source.width("decoder.p5.weight"),
        "pyramid_smooth": False,
        "enlarge": source.config.get("decoder_interpolation", "nearest"),
        "channels": width,
        "merge": "add" if source.width("segmentation_head.0.weight", 1) == width else "cat",
        "dropout": 0.2,
        "align_corners": True,
    }
    return Decoder(options, rules, 4)


def upernet(source: Source) -> Decoder:
    """UPerNet, which has a norm on each map."""
    levels = source.depth - 1
    rules: Rules = [(r"decoder\.feature_norms\.", "decoder.norms.")]
    rules += conv_rules(r"decoder\.psp\.blocks\.(\d+)\.1", r"decoder.context.pyramid.branches.\1.1")
    rules += conv_rules(r"decoder\.psp\.out_conv", "decoder.context.join")
    for i in range(levels - 1):
        theirs, ours = rf"decoder\.fpn_{{}}_blocks\.{i}", levels - 2 - i
        lateral = theirs.format("lateral") + r"\.conv_norm_relu"
        rules += conv_rules(lateral, f"decoder.laterals.{ours}")
        rules += conv_rules(theirs.format("conv"), f"decoder.smooth.{ours}")
    rules += conv_rules(r"decoder\.fusion_block", "decoder.fuse")
    if levels != 4:
        raise UserError(f"UPerNet with encoder_depth={source.depth} cannot be imported; 5 can")
    options = {
        "channels": source.width("decoder.fusion_block.0.weight"),
        "feature_norm": True,
        "dropout": 0.0,
        "align_corners": True,
        "inner_align_corners": False,
    }
    return Decoder(options, rules, 4)


def segformer(source: Source) -> Decoder:
    """Segformer, which takes its encoder's maps from the deepest on."""
    if not source.encoder.name.startswith("mit_") or source.depth != DEPTH:
        raise UserError(
            f"Segformer on {source.encoder.name} of depth {source.depth} cannot be imported; on mit_b0 to "
            "mit_b5 of depth 5 it can"
        )
    width = source.width("decoder.fuse_stage.0.weight")
    rules: Rules = [(rf"decoder\.mlp_stage\.{i}\.linear\.", f"decoder.project.{3 - i}.") for i in range(4)]
    rules += conv_rules(r"decoder\.fuse_stage", "decoder.fuse")
    options = {"decoder_channels": width, "dropout": 0.0, "align_corners": True, "inner_align_corners": False}

    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Make convolutions of the linear layers and join the finest map first."""
        return {
            key: torch.cat(x.split(width, dim=1)[::-1], dim=1)
            if key == "decoder.fuse_stage.0.weight"
            else x[..., None, None]
            if key.endswith("linear.weight")
            else x
            for key, x in state.items()
        }

    return Decoder(options, rules, 4, convert=convert)
