"""The losses that only some networks have, with masks of several labels."""

import pytest
import torch

from nets import create_model, list_models
from nets.registry import get_recipe
from utils.training.criterion import Criterion, ExtraLosses

EXTRA = {name: get_recipe(name)["paper"].get("extra_losses") for name in list_models()}


@pytest.mark.parametrize("family", [name for name, losses in EXTRA.items() if losses])
def test_extra_losses(family):
    torch.manual_seed(0)
    options = get_recipe(family)["paper"].get("model_options", {})
    network = create_model(family, bands=3, num_classes=3, task="multilabel", **options).train()
    outputs = network(torch.randn(2, 3, 64, 64))
    masks = torch.randint(0, 2, (2, 3, 8, 8)).repeat_interleave(8, 2).repeat_interleave(8, 3)
    masks[:, :, :4] = -1
    total, main = ExtraLosses(Criterion("ce+dice", aux_weight=0.0), EXTRA[family])(outputs, masks)
    assert total > main > 0
    total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
