"""Checkpoint files: plain Python values and tensors, opened with `weights_only=True`, written atomically."""

import os
import platform
import zipfile
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import nn

from nets.errors import UserError
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
    """Return the state of the network alone, on the CPU, without wrapper prefixes."""
    state = unwrap(network).state_dict()
    return {strip_prefixes(name): tensor.detach().cpu().clone() for name, tensor in state.items()}


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


def read_file(path: str | Path) -> dict:
    """Return the dict in a .pth file, whatever project wrote it.

    Raises:
        UserError: no such file, damaged, or not a dict of plain values and tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; give a .pth file, e.g. pth_files/RUN/best.pth")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a file that is not its own
        kind = "damaged" if zipfile.is_zipfile(path) else "damaged or not a PyTorch checkpoint"
        raise UserError(f"{path} is {kind} ({_first_line(error)}); use another file") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint; use a file of train.py")
    return content


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return (text.splitlines()[0][:120] if text else type(error).__name__).rstrip(".")


def is_ours(content: dict) -> bool:
    """Return whether a file's content has the shape that `write_checkpoint` gives it."""
    return isinstance(content.get("format"), int) and {"blueprint", "state_dict", "classes"} <= set(content)


def read_checkpoint(path: str | Path) -> dict:
    """Return a checkpoint of ours in today's format.

    Raises:
        UserError: unreadable, of another kind, or of a newer version.
    """
    content = read_file(path)
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


def load_matching(network: nn.Module, content: dict, path: str | Path) -> list[str]:
    """Load what fits from a checkpoint's tensors and return one line per tensor that was left out.

    Args:
        network: receives the weights.
        content: a file's dict: ours, or any with "state_dict" or "model", or a bare state dict.
        path: named in errors.

    Raises:
        UserError: nothing fits.
    """
    state = content
    for key in ("state_dict", "model"):
        state = state[key] if isinstance(state.get(key), dict) else state
    theirs = {strip_prefixes(name): t for name, t in state.items() if isinstance(t, torch.Tensor)}
    ours = network.state_dict()
    left_out, fitting = [], {}
    for name, tensor in theirs.items():
        if name not in ours:
            left_out.append(f"{name}: this network has no such tensor")
        elif tensor.shape != ours[name].shape:
            left_out.append(f"{name}: {list(tensor.shape)} in the file, {list(ours[name].shape)} here")
        else:
            fitting[name] = tensor
    # The band statistics alone prove nothing: every network has them.
    if not set(fitting) - {"mean", "std"}:
        raise UserError(
            f"nothing in {path} fits this network ({len(theirs)} tensors in it); choose another file"
        )
    left_out += [f"{name}: not in the file, stays at its start" for name in ours if name not in theirs]
    network.load_state_dict(fitting, strict=False)
    return left_out
