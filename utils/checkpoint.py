"""Checkpoint files: plain Python values and tensors, opened with `weights_only=True`, written atomically."""

import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import timm
import torch
from torch import nn

from nets.backbones.stem import StemInit, adapt_stem, find_stem
from nets.errors import UserError
from nets.importers.weight_files import read_weight_file, weights_in
from utils.devices import unwrap
from utils.files import replacing

FORMAT = 1
# Format number -> function that turns such a checkpoint into one of the next format.
UPGRADES: dict[int, Callable[[dict], dict]] = {}
PREFIXES = ("module.", "_orig_mod.")


def versions() -> dict[str, str]:
    """Return the versions that wrote a checkpoint."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "timm": timm.__version__}


def network_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return the state of the network alone, on the CPU, without wrapper prefixes.

    Of a network in shards every process has to ask for it.
    """
    state = whole(unwrap(network).state_dict())
    return {strip_prefixes(name): tensor.detach().cpu().clone() for name, tensor in state.items()}


def whole(state: object) -> object:
    """Return nested dicts and lists with the whole of every tensor of which this process holds a shard."""
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    return state.full_tensor() if hasattr(state, "full_tensor") else state


def strip_prefixes(name: str) -> str:
    """Return a parameter's name without what DataParallel and torch.compile put before it."""
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name


def write_checkpoint(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint so that `path` holds either the old or the whole new file, whatever happens."""
    with replacing(path) as part, part.open("wb") as file:
        torch.save({"format": FORMAT, **checkpoint}, file)
        file.flush()
        os.fsync(file.fileno())


def is_ours(content: dict) -> bool:
    """Return whether a file's content has the shape that `write_checkpoint` gives it."""
    parts = (content.get(key) for key in ("blueprint", "state_dict", "classes"))
    return isinstance(content.get("format"), int) and all(isinstance(part, dict) for part in parts)


def read_checkpoint(path: str | Path) -> dict:
    """Return a checkpoint of ours in today's format.

    Raises:
        UserError: unreadable, of another kind, or of a newer version.
    """
    content = read_weight_file(path)
    if not is_ours(content):
        raise UserError(
            f"{path} is a checkpoint of another kind (no blueprint in it); use a file of train.py"
        )
    return upgrade(content, path)


def upgrade(content: dict, path: str | Path) -> dict:
    """Return `content` in today's format."""
    if content["format"] > FORMAT:
        raise UserError(
            f"{path} has checkpoint format {content['format']}, this version reads up to {FORMAT}; update it"
        )
    while content["format"] < FORMAT:
        content = UPGRADES[content["format"]](content)
    return content


def load_matching(
    network: nn.Module,
    content: dict,
    path: str | Path,
    *,
    stem_init: StemInit = "rgb_mean",
    rgb_bands: Sequence[int] = (0, 1, 2),
) -> list[str]:
    """Load what fits from a checkpoint's tensors and return one line per tensor that was left out or changed.

    The first convolution of a backbone, of some two, is made for this network's bands (see `adapt_stem`),
    unless `stem_init` is "random".

    Args:
        network: receives the weights.
        content: a file's dict: ours, or any with "state_dict" or "model", or a bare state dict.
        path: named in errors.
        stem_init: what the first convolution starts from where the file's is for other bands.
        rgb_bands: bands, from 0, that are red, green and blue.

    Raises:
        UserError: nothing fits.
    """
    theirs, ours = weights_in(content), network.state_dict()
    stems, bands = _stems_of(network)
    given = {theirs[name].shape[1] for name in stems[:1] if name in theirs}
    left_out, fitting = [], {}
    for name, tensor in theirs.items():
        if name not in ours:
            left_out.append(f"{name}: this network has no such tensor")
        elif tensor.shape == ours[name].shape:
            fitting[name] = tensor
        elif name in stems and stem_init != "random" and _fits_but_for_bands(tensor, ours[name], given):
            fitting[name] = adapt_stem(tensor, bands, stem_init, rgb_bands)
            left_out.append(f"{name}: for {tensor.shape[1]} bands, made one for {bands} ({stem_init})")
        else:
            left_out.append(f"{name}: {list(tensor.shape)} in the file, {list(ours[name].shape)} here")
    # The band statistics alone prove nothing: every network has them.
    if not set(fitting) - {"mean", "std"}:
        raise UserError(
            f"nothing in {path} fits this network ({len(theirs)} tensors in it); choose another file"
        )
    left_out += [f"{name}: not in the file, stays at its start" for name in ours if name not in theirs]
    network.load_state_dict(fitting, strict=False)
    return left_out


def _stems_of(network: nn.Module) -> tuple[list[str], int]:
    """Return the names of the weights of a backbone's convolutions over the bands, and their number."""
    backbone = getattr(network, "backbone", None)
    if backbone is None:
        return [], 0
    bands = find_stem(backbone)[1].in_channels
    names = [
        f"backbone.{name}.weight"
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == bands
    ]
    return names, bands


def _fits_but_for_bands(theirs: torch.Tensor, ours: torch.Tensor, given: set[int]) -> bool:
    """Return whether a convolution's weight is ours for `given` bands."""
    same = theirs.ndim == 4 and theirs.shape[0] == ours.shape[0] and theirs.shape[2:] == ours.shape[2:]
    return same and theirs.shape[1] in given
