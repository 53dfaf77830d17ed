"""Layers whose trace for export holds for images of every size and gives what the layer gives."""

import warnings

import onnxruntime
import pytest
import torch
from timm.models.swin_transformer import PatchMerging, SwinTransformerBlock, window_partition
from torch import nn

from nets.backbones.semask import SemanticLayer
from nets.backbones.swin import pad_before_shift, shift_mask
from nets.layers import margins, windows
from nets.layers.grid import grid_mean, window_mean
from nets.layers.margins import crop, pad
from nets.layers.resize import resize
from nets.models.dmnet import filter_each
from nets.models.psanet import resize_aligned, shrunk_size
from nets.segmentation_model import MaskNetwork
from tests.helpers import randomize
from utils.deployment.formats import trace


class Layer(nn.Module):
    """A function of a map, as a network has it inside."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def _halve_and_back(x):
    size, aligned = shrunk_size(x.shape[-2:], 2)
    return resize_aligned(resize_aligned(x, size, aligned), x.shape[-2:], aligned)


SIDE = (7, 7)


def _cut_and_join(x):
    x = x.permute(0, 2, 3, 1)
    padded = pad(x.permute(0, 3, 1, 2), tuple(7 * margins.share(side, 7) for side in x.shape[1:3]))
    padded = padded.permute(0, 2, 3, 1)
    inside = windows.cut_windows(padded, SIDE)
    inside = inside * (1 + torch.arange(49, device=x.device))[:, None]
    return crop(windows.join_windows(inside, SIDE, padded.shape[:3]).permute(0, 3, 1, 2), x.shape[1:3])


def _swin():
    """A shifted block and the merging behind it, ours."""
    torch.manual_seed(0)
    block = SwinTransformerBlock(
        3, (56, 56), num_heads=1, window_size=7, shift_size=3, always_partition=True, dynamic_mask=True
    )
    network = nn.Sequential(block, PatchMerging(3))
    pad_before_shift(network)
    return randomize(network).double().eval().requires_grad_(False)


def _semantic():
    torch.manual_seed(0)
    return randomize(SemanticLayer(3, 5, blocks=2, window=7)).double().eval().requires_grad_(False)


SWIN, SEMANTIC = _swin(), _semantic()
LAYERS = {
    "windows": _cut_and_join,
    "swin": lambda x: SWIN(x.permute(0, 2, 3, 1)),
    "semantic": lambda x: torch.cat(SEMANTIC(x.permute(0, 2, 3, 1)), dim=-1),
    "crop": lambda x: crop(pad(x, (x.shape[-2] + 3, x.shape[-1] + 4), (1, 2)), x.shape[-2:], (2, 1)),
    "crop to itself or less": lambda x: crop(
        nn.functional.interpolate(x[..., ::2, ::2], scale_factor=2), x.shape[-2:]
    ),
    "replicate": lambda x: pad(x, (16, 20), replicate=True),
    "resize": lambda x: resize(
        nn.functional.max_pool2d(x, 2, ceil_mode=True).repeat(1, 1, 2, 2), x.shape[-2:]
    ),
    "grid": lambda x: grid_mean(x, 3),
    "filter": lambda x: filter_each(x, grid_mean(x, 5)),
    "large windows": lambda x: window_mean(x, 49, (16, 20)),
    "small windows": lambda x: window_mean(x, 5, (2, 3)),
    "halve": _halve_and_back,
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", ["export", "trace"])
def test_layers_trace_for_every_size(name, way):
    layer, x = Layer(LAYERS[name]), torch.randn(2, 3, 8, 12, dtype=torch.float64)
    if way == "export":
        traced = trace(layer, x, 5).module()
    else:
        with pytest.warns():  # PyTorch no longer develops it
            traced = torch.jit.trace(layer, (x[..., 1:, 1:],), check_trace=False)
    for shape in ((1, 3, 9, 13), (3, 3, 8, 11), (2, 3, 7, 12)):
        x = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(traced(x), layer(x), rtol=1e-9, atol=1e-9)


def test_windows_while_tracing_are_timms(monkeypatch):
    x = torch.randn(2, 21, 14, 3)
    monkeypatch.setattr(windows, "is_tracing", lambda: True)
    cut = windows.cut_windows(x, SIDE)
    assert torch.equal(cut, window_partition(x, SIDE).flatten(1, 2))
    assert torch.equal(windows.join_windows(cut, SIDE, (2, 21, 14)), x)


@pytest.mark.parametrize("size", [(14, 21), (7, 7), (7, 28)])
def test_the_mask_and_the_merging_are_timms(size):
    block = SwinTransformerBlock(3, (56, 56), num_heads=1, window_size=7, shift_size=3, always_partition=True)
    x = torch.randn(2, *size, 3)
    assert torch.equal(shift_mask(x, SIDE, (3, 3)), block.get_attn_mask(x))
    merging = nn.Sequential(PatchMerging(3))
    expected = merging(x)
    pad_before_shift(merging)
    assert torch.equal(merging(x), expected)


def _in_onnx(layer, x, path, **more):
    """Return a function that runs a layer's ONNX file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer, (x,), path, dynamo=True, verbose=False, **more)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0])


def test_swin_in_onnx_for_every_size(tmp_path):
    network, dynamic = _swin().float(), torch.export.Dim.DYNAMIC
    layer = Layer(lambda x: network(x.permute(0, 2, 3, 1)))
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic},)
    run = _in_onnx(layer, torch.randn(2, 3, 8, 12), tmp_path / "a.onnx", dynamic_shapes=shapes)
    for shape in ((1, 3, 20, 13), (2, 3, 7, 12), (1, 3, 5, 5)):
        x = torch.randn(shape)
        torch.testing.assert_close(run(x), layer(x), rtol=1e-4, atol=1e-4)


def test_onnx_where_no_query_has_a_mask(tmp_path):
    network, sums = MaskNetwork(3, 5), torch.rand(2, 5, 4, 6)
    sums[:, :, 1], sums[:, 1:, 2] = 0.0, 0.0
    sums[:, :, 3] = 1e-36 * sums[:, :, 3]
    shares = Layer(lambda x: network.probabilities({"logits": x}))
    found = _in_onnx(shares, sums, tmp_path / "a.onnx")(sums)
    torch.testing.assert_close(found, shares(sums), rtol=1e-5, atol=0.0)
    assert (found[:, :, 1] == 0.2).all() and (found[:, 0, 2] == 1).all()
