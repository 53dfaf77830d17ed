"""Runner for the parity script: the logits of another project's checkpoint in our network.

python compare.py --refs REFS --runner tools/parity_runner.py --dtype float64
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nets.importers.foreign import load_foreign


@torch.inference_mode()
def run(
    checkpoint: dict, images: np.ndarray, dtype: str = "float64", extras: dict[str, np.ndarray] | None = None
) -> np.ndarray:
    """Return the logits (N, K, H, W) that our network gives with an opened checkpoint's weights.

    Args:
        checkpoint: as `torch.load` opens it.
        images: (N, C, H, W), already normalised: the network's own normalisation is switched off.
        dtype: "float32" or "float64".
        extras: what the reference drew at run time; "ham_bases" are SegNeXt's starting bases.
    """
    precision = getattr(torch, dtype)
    network = load_foreign(checkpoint)
    network.mean.zero_()
    network.std.fill_(1.0)
    network.to(precision)
    if extras and "ham_bases" in extras:
        for module in network.modules():
            if hasattr(module, "fixed_bases"):
                module.fixed_bases = torch.from_numpy(extras["ham_bases"]).to(precision)
    return network(torch.from_numpy(images).to(precision))["logits"].numpy()


def logits(
    checkpoint_path: str,
    config_name: str,
    x: np.ndarray,
    dtype: str = "float32",
    extras: dict[str, np.ndarray] | None = None,
    info: dict | None = None,
) -> np.ndarray:
    """Return the logits (N, K, H, W) of a normalised batch; name and description are not needed."""
    checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=True)
    return run(checkpoint, x, dtype, extras)
