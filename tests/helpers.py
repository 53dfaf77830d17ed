"""Helpers that several test files share."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from utils.data.mixing import Crop
from utils.data.transforms import Augmentation

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
UNWRITABLE = Path("/proc")  # for root too; Linux has it
# Parameters without a gradient: (family, part of the name) -> reason.
NO_GRADIENT = {("emanet", "decoder.middle."): "no gradient passes the expectation maximisation"}


def shared_data(*parts: str) -> Path:
    """Return a folder of the shared data sets, or skip the test and say what is missing."""
    path = SHARED.joinpath("data", *parts)
    if not path.exists():
        pytest.skip(f"needs the shared data {'/'.join(parts)}, which is not here")
    return path


def augmented(
    augmentation: Augmentation, image: np.ndarray, valid: np.ndarray, mask: np.ndarray, seed: int
) -> Crop:
    """Return one crop of an image in memory, cut and changed as a data set does with a file."""
    rng = np.random.default_rng(seed)
    plan = augmentation.plan(rng, *mask.shape)
    top, left, height, width = plan.window
    part = (..., slice(top, top + height), slice(left, left + width))
    return augmentation.apply(plan, image[part], valid[part], mask[part], rng)


def quick_answer(command: list[str], folder: Path) -> str:
    """Run a program that must need less than a second of processor time, and return what it printed.

    Processor time, because the clock also shows what else the machine does.
    """

    resource = pytest.importorskip("resource")  # Windows has none

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert used() - before < 1.0
    return done.stdout


def randomize(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Give every weight and every running statistic a value that matters for the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.dim() == 1 and name.endswith("weight"):
                tensor.uniform_(0.7, 1.3, generator=generator)
            elif tensor.dim() == 1:
                tensor.normal_(0.0, 0.1, generator=generator)
            elif tensor.dim() > 1 and tensor.is_floating_point():
                tensor.normal_(0.0, (2.0 / tensor[0].numel()) ** 0.5, generator=generator)
    return network


@torch.no_grad()
def randomize_doubles(network: torch.nn.Module) -> torch.nn.Module:
    """Give every tensor of any project's network values that show in the logits, in double precision."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith(("norm.weight", "parameter"))):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(0.0, 0.2 if tensor.ndim == 1 else tensor[0].numel() ** -0.5)
    return network.double().eval()


@dataclass(frozen=True)
class ParityReference:
    """One parity reference of the shared folder.

    Attributes:
        checkpoint: the opened OpenMMLab checkpoint, as `torch.load` gives it.
        images: normalised input (N, C, H, W), float32.
        logits: reference logits in float64 at every `stride`-th pixel from `offset`.
        extras: what the reference drew at run time.
    """

    checkpoint: dict
    images: np.ndarray
    logits: np.ndarray
    stride: int
    offset: int
    extras: dict[str, np.ndarray]

    @property
    def first(self) -> "ParityReference":
        """The reference of the first image alone, in half the time."""
        return replace(self, images=self.images[:1], logits=self.logits[:1])

    def difference(self, logits: np.ndarray) -> float:
        """Return the largest deviation of logits (N, K, H, W), as a share of the reference's deviation."""
        own = logits[:, :, self.offset :: self.stride, self.offset :: self.stride]
        assert own.shape == self.logits.shape
        return float(np.abs(own - self.logits).max() / self.logits.std())


def shared_parity(name: str) -> ParityReference:
    """Return a parity reference, its checkpoint made from its spec, or skip the test."""
    folder = SHARED / "parity"
    path = folder / "refs" / f"{name}.small.npz"
    if not path.exists():
        pytest.skip(f"needs the parity reference {name}, which is not here")
    weights = _module(folder / "parity_weights.py")
    with np.load(path) as data:
        info = json.loads(str(data["info"]))
        stride = int(data["stride"])
        return ParityReference(
            checkpoint=weights.checkpoint(weights.load_spec(folder / "refs" / f"{name}.spec.json.gz")),
            images=weights.make_input(info["seed"], tuple(info["input"])),
            logits=data["logits64_sub"],
            stride=stride,
            offset=int(data["offset"]) if "offset" in data else stride // 2,
            extras={key[6:]: data[key] for key in data.files if key.startswith("extra_")},
        )


def _module(path: Path) -> ModuleType:
    if path.stem in sys.modules:
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def changed(checkpoint: dict, old: str, new: str) -> dict:
    """Return a checkpoint whose configuration has another text in one place."""
    text = checkpoint["meta"]["cfg"]
    assert old in text
    return {**checkpoint, "meta": {**checkpoint["meta"], "cfg": text.replace(old, new, 1)}}


def unnormalised(network):
    """Return the network so that it takes images that are normalised before, as the peers' do."""
    network.mean.zero_()
    network.std.fill_(1.0)
    return network


def tensors(outputs: dict) -> list[torch.Tensor]:
    """Return all that a network gives, in one list."""
    return [part for value in outputs.values() for part in (value if isinstance(value, list) else [value])]
