"""Backbones' tensors by their authors' names: where each goes; used through `backbone_files`.

STDC: https://github.com/MichaelFan01/STDC-Seg; DDRNet: https://github.com/ydhongHIT/DDRNet; PIDNet:
https://github.com/XuJiacong/PIDNet; MiT: https://github.com/NVlabs/SegFormer; Swin:
https://github.com/microsoft/Swin-Transformer; ConvNeXt: https://github.com/facebookresearch/ConvNeXt
"""

import torch
from torch import Tensor

from nets.importers.mmseg_heads import conv_rules
from nets.importers.placing import Rules
from nets.models.stdc import BLOCKS


def without_biases(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without the biases of convolutions in front of a batch norm, which take them over.

    A batch norm subtracts the mean, so that ours have none; the running mean is that of the biased result.
    """
    kept = dict(state_dict)
    for key, weight in state_dict.items():
        before = key.removesuffix(".weight")
        bias, mean = f"{before}.bias", _mean_behind(before)
        if weight.ndim == 4 and bias in kept and mean in kept and kept[mean].shape == kept[bias].shape:
            kept[mean] = kept[mean] - kept.pop(bias)
    return kept


def _mean_behind(conv: str) -> str:
    """Return the name of the running mean of the norm behind a convolution, ".conv" or a number."""
    name, _, last = conv.rpartition(".")
    norm = str(int(last) + 1) if last.isdigit() else last.replace("conv", "bn")
    return f"{name}.{norm}.running_mean"


def stdc(name: str) -> Rules:
    """Return the rules of STDC1 and STDC2, whose layers are numbered on."""
    places = ["0", "1", *(f"{i + 2}.{j}" for i, blocks in enumerate(BLOCKS[name]) for j in range(blocks))]
    rules: Rules = []
    for i, place in enumerate(places):
        theirs, ours = rf"backbone\.features\.{i}", f"backbone.stages.{place}"
        rules += conv_rules(rf"{theirs}\.conv_list\.(\d)", rf"{ours}.convs.\1")
        rules += _pair(rf"{theirs}\.avd_layer", 0, f"{ours}.down")
        for j in range(2):
            rules += _pair(rf"{theirs}\.skip", 2 * j, f"{ours}.skip.{j}")
        rules += conv_rules(theirs, ours)
    return [*rules, *conv_rules(r"backbone\.conv_last", "backbone.final_conv")]


def _pair(theirs: str, first: int, ours: str) -> Rules:
    """Return the rules of a convolution and the norm behind it in a sequence."""
    return [
        (rf"{theirs}\.{first}\.", f"{ours}.conv."),
        (rf"{theirs}\.{first + 1}\.", f"{ours}.norm."),
    ]


def _norm_first(theirs: str, first: int, ours: str) -> Rules:
    """Return the rules of a norm and, behind a ReLU, a convolution in a sequence."""
    return [
        (rf"{theirs}\.{first}\.", f"{ours}.norm."),
        (rf"{theirs}\.{first + 2}\.", f"{ours}.conv."),
    ]


def _stage(theirs: str, ours: str) -> Rules:
    """Return the rules of residual blocks; `theirs` ends with the block's number where there is one."""
    rules = _pair(rf"{theirs}\.downsample", 0, f"{ours}.shortcut")
    for i in range(3):
        rules += [
            (rf"{theirs}\.conv{i + 1}\.", f"{ours}.convs.{i}.conv."),
            (rf"{theirs}\.bn{i + 1}\.", f"{ours}.convs.{i}.norm."),
        ]
    return rules


def _stem() -> Rules:
    rules = [
        *_pair(r"backbone\.conv1", 0, "backbone.stem.0"),
        *_pair(r"backbone\.conv1", 3, "backbone.stem.1"),
    ]
    for i in (1, 2):
        rules += _stage(rf"backbone\.layer{i}\.(\d)", rf"backbone.stem.{2 * i}.\1")
    return rules


def _pyramid() -> Rules:
    """Return the rules of DAPPM and PAPPM."""
    theirs, ours = r"backbone\.spp", "backbone.pyramid"
    rules = _norm_first(rf"{theirs}\.scale0", 0, f"{ours}.project")
    for i in range(4):
        rules += _norm_first(rf"{theirs}\.scale{i + 1}", 1, f"{ours}.scales.{i}.1")
        rules += _norm_first(rf"{theirs}\.process{i + 1}", 0, f"{ours}.convs.{i}")
    return [
        *rules,
        *_norm_first(rf"{theirs}\.scale_process", 0, f"{ours}.convs"),
        *_norm_first(rf"{theirs}\.compression", 0, f"{ours}.join"),
        *_norm_first(rf"{theirs}\.shortcut", 0, f"{ours}.shortcut"),
    ]


def ddrnet(parts: tuple[str, ...]) -> Rules:
    """Return the rules of DDRNet.

    Args:
        parts: the numbers of its stages with two branches: 3 and 4, of DDRNet-39 3_1, 3_2 and 4.
    """
    rules = [*_stem(), *_pyramid()]
    for place, part in enumerate(parts):
        ours = f"backbone.stages.{place}"
        rules += _stage(rf"backbone\.layer{part}\.(\d)", rf"{ours}.deep.\1")
        rules += _stage(rf"backbone\.layer{part}_\.(\d)", rf"{ours}.fine.\1")
        rules += _pair(rf"backbone\.compression{part}", 0, f"{ours}.compress")
        for i in range(2):
            rules += _pair(rf"backbone\.down{part}", 3 * i, f"{ours}.down.{i}")
    return [
        *rules,
        *_stage(r"backbone\.layer5\.(\d)", r"backbone.deep_last.\1"),
        *_stage(r"backbone\.layer5_\.(\d)", r"backbone.fine_last.\1"),
    ]


def pidnet() -> Rules:
    """Return the rules of PIDNet."""
    rules = [*_stem(), *_pyramid()]
    for i in range(3):
        rules += _stage(rf"backbone\.layer{i + 3}\.(\d)", rf"backbone.deep.{i}.\1")
        rules += _stage(rf"backbone\.layer{i + 3}_\.(\d)", rf"backbone.fine.{i}.\1")
        # A single block, which some sizes have in a sequence of one.
        rules += _stage(rf"backbone\.layer{i + 3}_d(?:\.0)?", f"backbone.boundary.{i}")
    for i in range(2):
        rules += _pair(rf"backbone\.compression{i + 3}", 0, f"backbone.compress.{i}")
        rules += _pair(rf"backbone\.diff{i + 3}", 0, f"backbone.tell.{i}")
        rules += _pair(rf"backbone\.pag{i + 3}\.f_x", 0, f"backbone.guide.{i}.fine")
        rules += _pair(rf"backbone\.pag{i + 3}\.f_y", 0, f"backbone.guide.{i}.deep")
    return [
        *rules,
        *_pair(r"backbone\.dfm\.conv_p", 0, "backbone.fuse.fine"),
        *_pair(r"backbone\.dfm\.conv_i", 0, "backbone.fuse.deep"),
        *_norm_first(r"backbone\.dfm\.conv", 0, "backbone.fuse.conv"),
    ]


def mit() -> Rules:
    """Return the rules of MiT; queries, keys and values are joined by `merge_mit`."""
    rules: Rules = []
    for i in range(4):  # the authors count stages from 1
        block, ours = rf"backbone\.block{i + 1}\.(\d+)", rf"backbone.stages.{i}.blocks.\1"
        rules += [
            (rf"backbone\.patch_embed{i + 1}\.proj\.", f"backbone.stages.{i}.embed."),
            (rf"backbone\.patch_embed{i + 1}\.norm\.", f"backbone.stages.{i}.embed_norm."),
            (rf"backbone\.norm{i + 1}\.", f"backbone.stages.{i}.norm."),
            (rf"{block}\.attn\.qkv\.", rf"{ours}.attention.qkv."),
            (rf"{block}\.attn\.proj\.", rf"{ours}.attention.project."),
            (rf"{block}\.attn\.sr\.", rf"{ours}.attention.reduce."),
            (rf"{block}\.attn\.norm\.", rf"{ours}.attention.norm."),
            (rf"{block}\.mlp\.fc1\.", rf"{ours}.mlp.expand."),
            (rf"{block}\.mlp\.dwconv\.dwconv\.", rf"{ours}.mlp.mix."),
            (rf"{block}\.mlp\.fc2\.", rf"{ours}.mlp.contract."),
            (rf"{block}\.", rf"{ours}."),
        ]
    return rules


def merge_mit(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with queries above keys and values in one matrix."""
    merged = {}
    for key, value in state_dict.items():
        if ".attn.q." in key:
            others = state_dict[key.replace(".attn.q.", ".attn.kv.")]
            merged[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat([value, others])
        elif ".attn.kv." not in key:
            merged[key] = value
    return merged


def swin() -> Rules:
    """Return the rules of Swin, also of timm's first naming: they halve the map at a stage's end."""
    block = r"backbone\.layers\.(\d+)\.blocks\.(\d+)"
    return [
        (rf"{block}\.attn\.relative_position_index", None),  # computed anew
        (rf"{block}\.attn_mask", None),
        (rf"{block}\.", r"backbone.body.layers_\1.blocks.\2."),
        *(
            (rf"backbone\.layers\.{i}\.downsample\.", f"backbone.body.layers_{i + 1}.downsample.")
            for i in range(3)
        ),
        (r"backbone\.patch_embed\.", "backbone.body.patch_embed."),
        (r"backbone\.norm(\d)\.", r"backbone.norms.\1."),
    ]


def convnext() -> Rules:
    """Return the rules of ConvNeXt."""
    block, ours = r"backbone\.stages\.(\d)\.(\d+)", r"backbone.body.stages_\1.blocks.\2"
    return [
        (r"backbone\.downsample_layers\.0\.", "backbone.body.stem_"),
        (r"backbone\.downsample_layers\.(\d)\.", r"backbone.body.stages_\1.downsample."),
        (rf"{block}\.dwconv\.", rf"{ours}.conv_dw."),
        (rf"{block}\.pwconv(\d)\.", rf"{ours}.mlp.fc\3."),
        (rf"{block}\.", rf"{ours}."),
        (r"backbone\.norm(\d)\.", r"backbone.norms.\1."),
    ]
