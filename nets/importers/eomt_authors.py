"""The authors' own checkpoints of EoMT on DINOv2, known by the names of their tensors: family eomt.

https://github.com/tue-mps/eomt, MIT
"""

import math
import re

from torch import Tensor

from nets.errors import UserError
from nets.importers.about import RGB
from nets.importers.huggingface_eomt import count_masked
from nets.importers.placing import Rules, rename
from nets.importers.tensor_names import count

# What Lightning and torch.compile put into the names.
WRAPPED = re.compile(r"^network\.|_orig_mod\.")
SIZES = {384: "dinov2_small", 768: "dinov2_base", 1024: "dinov2_large", 1536: "dinov2_giant"}
BACKBONE = "encoder.backbone."


def is_eomt(state_dict: dict[str, Tensor]) -> bool:
    """Return whether these weights are of the authors' EoMT."""
    names = {WRAPPED.sub("", key) for key in state_dict}
    return {"q.weight", "class_head.weight", "attn_mask_probs", f"{BACKBONE}norm.weight"} <= names


def read_eomt_authors(state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor], dict]:
    """Translate the authors' weights.

    Returns:
        The blueprint, the weights by our names, and what is known beside them, as `describe_import` takes it.

    Raises:
        UserError: a DINOv3, whose file holds the difference to Meta's weights alone, or another backbone.
    """
    state = {WRAPPED.sub("", key): value for key, value in state_dict.items()}
    positions, stem = (state.get(f"{BACKBONE}{name}") for name in ("pos_embed", "patch_embed.proj.weight"))
    queries, width = state["q.weight"].shape
    if positions is None or stem is None or width not in SIZES:
        raise UserError(
            "this EoMT of its authors is not built on DINOv2; of those on DINOv3 they publish the "
            "difference to Meta's weights alone: give the version of Hugging Face"
        )
    patch, grid = stem.shape[-1], math.isqrt(positions.shape[1])
    options = {
        "bands": stem.shape[1],
        "num_classes": len(state["class_head.weight"]) - 1,
        "backbone": SIZES[width],
        "queries": queries,
        "blocks": len(state["attn_mask_probs"]),
        "masked_blocks": count_masked(state["attn_mask_probs"]),
        "patch": patch,
        "image_size": (grid * patch, grid * patch),
        "doublings": count(state, r"upscale\.(\d+)\."),
    }
    facts = {}
    if "encoder.pixel_mean" in state:  # of images in 0..1
        mean, std = (255 * state[f"encoder.pixel_{name}"].flatten() for name in ("mean", "std"))
        facts = {"mean": mean.tolist(), "std": std.tolist(), "band_names": RGB if len(mean) == 3 else None}
    return {"name": "eomt", "options": options}, rename(state, _rules()), facts


def _rules() -> Rules:
    head = "query_decoder"
    return [
        (r"encoder\.pixel_", None),  # the normalisation
        (r"criterion\.", None),  # the losses' own
        (r"encoder\.backbone\.", "backbone.body."),
        (r"attn_mask_probs", "mask_chances"),
        (r"q\.weight", f"{head}.query_features"),
        (r"class_head\.", f"{head}.classifier."),
        (r"mask_head\.", f"{head}.mask_embedding."),
        (r"upscale\.(\d+)\.conv1\.", rf"{head}.enlarge.\1.0."),
        (r"upscale\.(\d+)\.conv2\.", rf"{head}.enlarge.\1.2."),
        (r"upscale\.(\d+)\.norm\.", rf"{head}.enlarge.\1.3."),
    ]
