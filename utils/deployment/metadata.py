"""What an exported file says about its network, as JSON: all that a program needs to use it."""

import json
import math

from torch import nn

FORMAT = 1
# The metadata entry of an ONNX file; with ".json" the extra file of the other two.
KEY = "pureseg"


def describe(network: nn.Module) -> dict:
    """Return everything about a network that `load_network` gave, as plain values for JSON."""
    about = {key: value for key, value in network.about.items() if key not in ("format", "versions")}
    return {
        "format": FORMAT,
        "input": "images: float32 (B, C, H, W), values as in the image file, NaN where invalid",
        "output": "probabilities: float32 (B, K, H, W)",
        "num_bands": network.bands,
        "num_classes": network.num_classes,
        "min_size": network.min_size,
        "size_divisor": network.size_divisor,
        "task": network.task,
        "about": _plain(about),
    }


def to_text(network: nn.Module) -> str:
    """Return `describe` as text."""
    return json.dumps(describe(network), ensure_ascii=False, allow_nan=False)


def size_rule(min_size: int, size_divisor: int) -> str:
    """Return in words which sizes a network takes."""
    multiple = f", sides a multiple of {size_divisor}" if size_divisor > 1 else ""
    return f"any from {min_size} x {min_size} pixels on{multiple}; pad smaller images with NaN"


def _plain(value: object) -> object:
    """Return `value` as JSON can hold it; what is not finite, as the IoU of no pixel, becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
