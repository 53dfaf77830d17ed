"""Weights of segmentation_models.pytorch's DPT on a plain vision transformer of timm.

https://github.com/qubvel-org/segmentation_models.pytorch, MIT. A state dict does not show which blocks are
read, nor whether the class token is added to the patches or ignored; they are arguments here, with defaults.
"""

import math

from torch import Tensor

from nets.errors import UserError
from nets.importers.placing import Rules, rename
from nets.importers.plain_backbones import find_size

CLASSIFIER = "segmentation_head.head.4.weight"
READOUT = "decoder.projection_blocks.0.project.0.weight"
HEAD_CHANNELS = 64


def is_smp_dpt(state_dict: dict[str, Tensor]) -> bool:
    """Return whether these are the weights of a DPT of segmentation_models.pytorch."""
    return CLASSIFIER in state_dict and "encoder.model.patch_embed.proj.weight" in state_dict


def read_smp_dpt(
    state_dict: dict[str, Tensor], *, readout: str = "ignore", layers: tuple[int, ...] | None = None
) -> tuple[dict, dict[str, Tensor]]:
    """Translate the weights of a DPT of segmentation_models.pytorch.

    Args:
        state_dict: its weights.
        readout: "add" or "ignore", where the weights have no projection ("cat") that says it.
        layers: `encoder_output_indices`; None spreads them evenly, as that package does.

    Returns:
        The blueprint and the state dict of our network, which `place_weights` loads.

    Raises:
        UserError: a transformer without class token or without positions.
    """
    patches = state_dict["encoder.model.patch_embed.proj.weight"]  # (D, bands, patch, patch)
    width, bands, patch, _ = patches.shape
    if "encoder.model.cls_token" not in state_dict or "encoder.model.pos_embed" not in state_dict:
        raise UserError(
            "a DPT of segmentation_models.pytorch is needed on a ViT with class token and positions"
        )
    depth = 1 + max(int(key.split(".")[3]) for key in state_dict if key.startswith("encoder.model.blocks."))
    widths = []
    while f"decoder.reassemble_blocks.{len(widths)}.project_to_out_channel.weight" in state_dict:
        key = f"decoder.reassemble_blocks.{len(widths)}.project_to_out_channel.weight"
        widths.append(state_dict[key].shape[0])
    count = len(widths)
    layers = tuple(layers or (int(depth / count * (i + 1)) - 1 for i in range(count)))
    size, own = find_size(width, depth, width // HEAD_CHANNELS)
    side = patch * math.isqrt(state_dict["encoder.model.pos_embed"].shape[1])
    own |= {"image_size": (side, side), "position_interpolation": "antialiased"}
    scale = state_dict.get("encoder.model.blocks.0.ls1.gamma")
    options = {
        "bands": bands,
        "num_classes": state_dict[CLASSIFIER].shape[0],
        "backbone": size,
        "readout": "project" if READOUT in state_dict else readout,
        "layers": layers,
        "patch": patch,
        "widths": tuple(widths),
        "channels": state_dict[CLASSIFIER].shape[1],
        "refine_deepest": True,
        "backbone_options": own | ({"layer_scale": 1e-5} if scale is not None else {}),
    }
    return {"name": "dpt", "options": options}, rename(state_dict, _rules(count, depth, layers[-1]))


def _rules(levels: int, depth: int, last: int) -> Rules:
    level = r"decoder\.reassemble_blocks\.(\d+)"
    rules: Rules = [
        # What lies behind the last map, and the end that classifies.
        *((rf"encoder\.model\.blocks\.{i}\.", None) for i in range(last + 1, depth)),
        (r"encoder\.model\.(norm|fc_norm|head)\.", None),
        (r"encoder\.model\.", "backbone.body."),
        (r"decoder\.projection_blocks\.(\d+)\.project\.0\.", r"backbone.projects.\1."),
        (rf"{level}\.project_to_out_channel\.", r"head.reassemble.\1.0."),
        (rf"{level}\.upsample\.", r"head.reassemble.\1.1."),
        (rf"{level}\.project_to_feature_dim\.", r"head.reassemble.\1.2."),
        (r"segmentation_head\.head\.0\.", "head.smooth.conv."),
        (r"segmentation_head\.head\.1\.", "head.smooth.norm."),
        (r"segmentation_head\.head\.4\.", "head.classifier."),
    ]
    for i in range(levels):  # theirs are numbered from the deepest on
        theirs, ours = rf"decoder\.fusion_blocks\.{i}", f"head.fusions.{levels - 1 - i}"
        rules.append((rf"{theirs}\.project\.", f"{ours}.project."))
        for number, unit in enumerate(("refine", "smooth"), start=1):
            for place, name in enumerate(("first", "second"), start=1):
                block = rf"{theirs}\.residual_conv_block{number}"
                rules.append((rf"{block}\.conv_{place}\.", f"{ours}.{unit}.{name}.conv."))
                rules.append((rf"{block}\.batch_norm_{place}\.", f"{ours}.{unit}.{name}.norm."))
    return rules
