"""Files of weights, whatever project wrote them: .pth in both layouts of torch.save, safetensors, folders.

Nothing in a file is run: torch opens it with `weights_only`, and what torch refuses because of foreign
objects goes through the restricted unpickler.
"""

import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from nets.errors import UserError
from nets.importers.restricted_pickle import read_restricted

# What training programs put the weights under, and wrappers in front of their names.
CONTAINERS = ("state_dict", "model_state_dict", "model")
WRAPPERS = re.compile(r"^((module|_orig_mod)\.)+")
# A folder of Hugging Face: the configuration, and the files that may hold its weights.
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
FOLDER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read_weight_file(path: str | Path) -> dict:
    """Return the dict in a file of weights, or the parts of a Hugging Face folder.

    A folder, or a file of Hugging Face's name in one, gives {"config", "preprocessor", "state_dict"}.

    Raises:
        UserError: no such file, damaged, or not a dict.
    """
    path = Path(path)
    if path.is_file() and path.name in FOLDER_WEIGHTS and (path.parent / CONFIG).is_file():
        path = path.parent
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist; give a .pth file, e.g. pth_files/RUN/best.pth")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint; use a file of train.py")
    return content


def weights_in(content: dict) -> dict[str, Tensor]:
    """Return the tensors of a file's content by their names, without containers and wrapper prefixes."""
    state = content
    while any(isinstance(state.get(key), dict) for key in CONTAINERS):
        state = next(state[key] for key in CONTAINERS if isinstance(state.get(key), dict))
    return {
        WRAPPERS.sub("", name): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():  # of another protocol of pickle, which is then read below
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as refused:  # torch raises a dozen kinds for a file that is not its own
        try:
            return read_restricted(path)[0]
        except pickle.UnpicklingError:
            kind = "damaged" if zipfile.is_zipfile(path) else "damaged or not a PyTorch checkpoint"
            raise UserError(f"{path} is {kind} ({_first_line(refused)}); use another file") from refused


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({_first_line(error)}); use another file") from error


def _read_folder(folder: Path) -> dict:
    config = _read_json(folder / CONFIG)
    if config is None:
        raise UserError(f"folder {folder} has no {CONFIG}; give a checkpoint file or a Hugging Face folder")
    state: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        state |= weights_in(read_single(path))
    return {"config": config, "preprocessor": _read_json(folder / PREPROCESSOR) or {}, "state_dict": state}


def read_single(path: Path) -> dict:
    """Return the dict in one file of a folder."""
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    return content if isinstance(content, dict) else {}


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder's weights, which may be divided into several."""
    for name in FOLDER_WEIGHTS:
        index = _read_json(folder / f"{name}.index.json")
        names = sorted(set(index["weight_map"].values())) if index is not None else [name]
        # A name of the index stays inside the folder.
        paths = [folder / Path(part).name for part in names]
        if all(path.is_file() for path in paths):
            return paths
    raise UserError(f"folder {folder} has none of {', '.join(FOLDER_WEIGHTS)}; the weights are missing")


def _read_json(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({_first_line(error)}); fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; an object of settings is expected")
    return content


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return (text.splitlines()[0][:120] if text else type(error).__name__).rstrip(".")
