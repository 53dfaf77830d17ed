"""A file of a network that unpools may find the other one of two equal maxima; nothing else may differ."""

import pytest
import torch
from torch import nn

from nets import create_model
from nets.layers.unpool import MaxUnpool, find_maxima, unpool
from tests.helpers import randomize
from utils.deployment.check import ExportError, check, example
from utils.deployment.formats import FORMATS
from utils.deployment.ties import onnx_maxima, tied_as_in_file


class Unpooling(nn.Module):
    """A network that unpools a map with many ties."""

    task, bands, min_size, size_divisor = "multiclass", 1, 8, 1

    def __init__(self):
        super().__init__()
        self.unpool = MaxUnpool()
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))
        self.about = {"crop_size": [16, 16]}

    def pooled(self, images):
        return images.nan_to_num().round()

    def forward(self, images):
        values = self.pooled(images)
        logits = self.unpool(values[..., : values.shape[-2] // 2, : values.shape[-1] // 2], values)
        return {"logits": torch.cat([logits, torch.zeros_like(logits)], 1)}

    def probabilities(self, outputs):
        return outputs["logits"].softmax(1)


def last_maxima(images):
    """The last of equal maxima of each cell, where PyTorch finds the first."""
    values = Unpooling().pooled(images)
    height, width = (side // 2 * 2 for side in values.shape[-2:])
    turned = find_maxima(values[..., :height, :width].flip(-1, -2)).flip(-1, -2)
    return [((height - 1) - turned // width) * values.shape[-1] + (width - 1) - turned % width]


def first_places(images):
    """The first place of each cell, whatever is there."""
    height, width = images.shape[-2:]
    rows, columns = torch.arange(0, height - 1, 2), torch.arange(0, width - 1, 2)
    return [(rows[:, None] * width + columns).expand(len(images), 1, -1, -1).contiguous()]


def file_with(maxima, change=lambda logits: logits):
    """What a file of the network with such maxima gives."""

    def run(images):
        network = Unpooling()
        values = network.pooled(images)
        logits = unpool(
            values[..., : values.shape[-2] // 2, : values.shape[-1] // 2], maxima(images)[0], values
        )
        logits = change(torch.cat([logits, torch.zeros_like(logits)], 1))
        return network.probabilities({"logits": logits})

    return run


def test_tied_maxima_may_be_the_files():
    network, run = Unpooling().eval(), file_with(last_maxima)
    with pytest.raises(ExportError, match="the file differs from the network"):
        list(check(network, run))
    found = list(check(network, run, maxima=last_maxima))
    assert all(each.small and each.ties > 0 and each.with_ties > 0.01 for each in found)
    assert "of its maxima tie up to rounding" in str(found[0])
    assert not network.unpool._forward_hooks


def test_other_places_than_maxima_are_a_failure():
    with pytest.raises(ExportError, match="the file differs from the network"):
        list(check(Unpooling().eval(), file_with(first_places), maxima=first_places))


def test_a_wrong_file_with_ties_is_a_failure():
    run = file_with(last_maxima, change=lambda logits: logits * 1.01)
    with pytest.raises(ExportError, match="the file differs from the network"):
        list(check(Unpooling().eval(), run, maxima=last_maxima))


def test_a_tie_is_of_one_cell():
    pooled = torch.zeros(1, 1, 2, 4)
    values = torch.tensor([[[[5.0, 7.0]]]])
    network = nn.Sequential(MaxUnpool())
    for other, expected in ((5, [5, 2]), (2, [0, 2])):  # the same cell, the next one
        with tied_as_in_file(network, [torch.tensor([[[[other, 2]]]])]) as ties:
            found = network[0](values, pooled)
        assert [found.flatten()[at].item() for at in expected] == [5.0, 7.0]
        assert ties.count == int(other == 5)


@pytest.mark.parametrize("family", ["enet", "segnet"])
def test_the_maxima_of_an_onnx_file(tmp_path, family):
    options = {"segnet": {"backbone": "vgg11"}, "enet": {}}[family]
    torch.manual_seed(0)
    network = randomize(create_model(family, bands=2, num_classes=3, **options)).eval()
    network.about = {"crop_size": [32, 32]}
    FORMATS["onnx"].write(network, tmp_path / "a.onnx")
    images, own = example(network, 2, (33, 47)), []
    for module in network.modules():
        if isinstance(module, MaxUnpool):
            module.register_forward_hook(lambda _m, inputs, _o: own.append(find_maxima(inputs[1])))
    with torch.inference_mode():
        network(images)
    found = onnx_maxima(tmp_path / "a.onnx")(images)
    assert len(found) == len(own) == {"segnet": 5, "enet": 2}[family]
    # A tie or two may be there; nearly all are the same.
    assert all(a.shape == b.shape and (a != b).float().mean() < 1e-3 for a, b in zip(own, found, strict=True))
