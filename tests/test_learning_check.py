"""The learning check measures output grids and fits ceilings as it says."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.learning_check import SMALLEST, table
from benchmarks.output_ceiling import ceiling, output_grid
from nets import list_models
from tests.engine_helpers import Toy
from utils.options import train_options
from utils.training.setup import build_network

STRIDES = {
    "ann": 8, "apcnet": 8, "attention_unet": 1, "bisenet": 8, "ccnet": 8, "cgnet": 8, "danet": 8,
    "ddrnet": 8, "deeplab": 4, "dmnet": 8, "dnlnet": 8, "dpt": 2, "emanet": 8, "encnet": 8, "enet": 1,
    "eomt": 4, "erfnet": 1, "fast_scnn": 8, "fastfcn": 8, "fcn": 8, "gcnet": 8, "hrnet": 4, "icnet": 8,
    "isanet": 8, "knet": 8, "linknet": 1, "lraspp": 8, "manet": 1, "mask2former": 4, "maskformer": 4,
    "nonlocal_net": 8, "ocrnet": 4, "pan": 4, "pidnet": 8, "pointrend": 4, "psanet": 8, "pspnet": 8,
    "refinenet": 4, "segformer": 4, "segmenter": 16, "segnet": 1, "segnext": 8, "sem_fpn": 4, "semask": 4,
    "setr": 16, "stdc": 8, "u2net": 1, "unet": 1, "unet_plusplus": 1, "upernet": 4, "vit_adapter": 4,
}  # fmt: skip


@pytest.mark.parametrize("family", list_models())
def test_grid(family):
    options = train_options(["--MODEL_TYPE", family, *SMALLEST.get(family, [])])
    with torch.device("meta"):
        network = build_network(options, bands=3, num_classes=11)
        assert output_grid(network, 96, 160) == (96 // STRIDES[family], 160 // STRIDES[family])
    assert network.training and not any(module._forward_hooks for module in network.modules())


def images(masks: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(num_classes=2, tensors=lambda: (None, masks))


def test_ceiling():
    checks = (torch.arange(16)[:, None] + torch.arange(24)) % 2  # finer than any grid but the image's own
    halves = (torch.arange(24) >= 12).long().expand(16, 24)
    assert ceiling(images(checks[None]), (16, 24)) == 1.0
    assert ceiling(images(checks[None]), (4, 6)) < 0.6
    assert ceiling(images(halves[None]), (4, 6)) == 1.0


def test_table():
    row = {"family": "unet", "variant": "resnet18", "parameters": "14000000", "images": "16", "stride": "1"}
    row |= {"ceiling": "1.0", "mIoU": "0.95", "steps": "300", "limit": "1500"}
    lines = table([{**row, "reached": "True"}, {**row, "family": "fcn", "reached": "False"}]).splitlines()
    assert lines[2].startswith("| fcn |") and lines[2].endswith("| not in 1500 |")
    assert lines[3] == "| unet | resnet18 | 14.00 M | 16 | 1 | 1.000 | 0.950 | 95% | 300 | yes |"


def test_grid_of_a_network_that_predicts_masks():
    assert output_grid(Toy(), 64, 96) == (32, 48)
