"""The parts of Mask2Former by hand: deformable attention, positions, masked attention, the sum of masks."""

import math
from types import SimpleNamespace

import pytest
import torch

from nets import create_model
from nets.decoders.masked_attention import attended_pixels
from nets.errors import UserError
from nets.layers import deformable_attention as file
from nets.layers.attention import Attention
from nets.layers.deformable_attention import (
    DeformableAttention,
    pixel_centres,
    sample_by_corners,
    sample_by_grid,
)
from nets.layers.init import reinitialize
from nets.layers.position import sine_positions
from nets.segmentation_model import QUERIES_AT_ONCE, sum_of_masks
from tests.helpers import randomize

TINY = {
    "backbone": "resnet18", "queries": 5, "channels": 32, "mask_channels": 8, "pixel_layers": 1,
    "pixel_feedforward": 8, "decoder_layers": 4, "feedforward": 8,
}  # fmt: skip


def pixel(plane: list[list[float]], row: int, column: int) -> float:
    inside = 0 <= row < len(plane) and 0 <= column < len(plane[0])
    return plane[row][column] if inside else 0.0


def bilinear(plane: list[list[float]], x: float, y: float) -> float:
    """Return the value at (x, y) in pixels, pixel 0 reaching from 0 to 1, its centre at 0.5."""
    column, row = math.floor(x - 0.5), math.floor(y - 0.5)
    right, below = x - 0.5 - column, y - 0.5 - row
    upper = (1 - right) * pixel(plane, row, column) + right * pixel(plane, row, column + 1)
    lower = (1 - right) * pixel(plane, row + 1, column) + right * pixel(plane, row + 1, column + 1)
    return (1 - below) * upper + below * lower


@pytest.mark.parametrize("sample", [sample_by_grid, sample_by_corners])
def test_deformable_attention_is_a_slow_loop(sample, monkeypatch):
    monkeypatch.setattr(file, "sample", sample)
    sizes, heads, points, width = [(2, 3), (4, 5)], 2, 3, 4
    layer = DeformableAttention(width, heads=heads, levels=2, points=points).double()
    randomize(layer)
    layer.offsets.bias.data.mul_(30)  # some places lie beyond the maps
    centres = pixel_centres(sizes, device=torch.device("cpu"))
    queries, tokens = torch.randn(2, 2, len(centres), width, dtype=torch.float64)
    result = layer(queries, tokens, centres, sizes)
    beyond = 0
    for b in range(2):
        values = layer.value(tokens[b]).tolist()
        offsets, weights = layer.offsets(queries[b]).tolist(), layer.weights(queries[b])
        for n in range(len(centres)):
            attended = []
            for head in range(heads):
                own = weights[n].unflatten(0, (heads, -1))[head].softmax(0).tolist()
                total = [0.0] * (width // heads)
                for level, (height, side) in enumerate(sizes):
                    start = 0 if level == 0 else math.prod(sizes[0])
                    for point in range(points):
                        place = (head * 2 + level) * points + point
                        x = float(centres[n, 0]) * side + offsets[n][2 * place]
                        y = float(centres[n, 1]) * height + offsets[n][2 * place + 1]
                        beyond += not (0 < x < side and 0 < y < height)
                        for channel in range(width // heads):
                            plane = [
                                [
                                    values[start + row * side + column][head * (width // heads) + channel]
                                    for column in range(side)
                                ]
                                for row in range(height)
                            ]
                            total[channel] += own[level * points + point] * bilinear(plane, x, y)
                attended += total
            expected = layer.project(torch.tensor(attended, dtype=torch.float64))
            torch.testing.assert_close(result[b, n], expected, rtol=1e-9, atol=1e-10)
    assert beyond > 20


def test_both_ways_to_sample_have_the_same_gradients():
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    places = (torch.rand(2, 6, 7, 2, dtype=torch.float64) * 1.6 - 0.3).requires_grad_()
    weights = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    grid, corners = (
        torch.autograd.grad((sample(maps, places) * weights).sum(), (maps, places))
        for sample in (sample_by_grid, sample_by_corners)
    )
    for one, other in zip(grid, corners, strict=True):
        torch.testing.assert_close(one, other)


def test_where_grid_sample_cannot_be_differentiated_the_corners_are_gathered(monkeypatch):
    monkeypatch.setattr(file, "sample_by_grid", lambda maps, places: "grid")
    monkeypatch.setattr(file, "sample_by_corners", lambda maps, places: "corners")
    chosen = {
        device: file.sample(SimpleNamespace(device=torch.device(device)), None)
        for device in ("cpu", "cuda", "mps", "meta")
    }
    assert chosen == {"cpu": "grid", "cuda": "grid", "mps": "corners", "meta": "grid"}
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    monkeypatch.setattr(torch, "is_deterministic_algorithms_warn_only_enabled", lambda: False)
    assert file.sample(SimpleNamespace(device=torch.device("cuda")), None) == "corners"
    monkeypatch.setattr(torch, "is_deterministic_algorithms_warn_only_enabled", lambda: True)
    assert file.sample(SimpleNamespace(device=torch.device("cuda")), None) == "grid"


def test_centres_are_ordered_as_the_tokens():
    centres = pixel_centres([(1, 2), (2, 1)], device=torch.device("cpu"))
    assert centres.tolist() == [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]]


def test_heads_start_in_all_directions():
    layer = DeformableAttention(16, heads=8, levels=2, points=3)
    offsets = layer.offsets(torch.randn(1, 16)).reshape(8, 2, 3, 2)
    torch.testing.assert_close(offsets[0, 1], torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
    torch.testing.assert_close(offsets[3, 0, 2], torch.tensor([-3.0, 3.0]))
    assert layer.weights(torch.randn(1, 16)).eq(0).all()
    value = layer.value.weight.clone()
    reinitialize(layer, "xavier")
    assert not torch.equal(layer.value.weight, value)
    assert torch.equal(layer.offsets(torch.randn(1, 16)).reshape(8, 2, 3, 2), offsets)


@pytest.mark.parametrize(
    "options", [{}, {"normalize": False}, {"temperature": 20.0, "scale": 1.0, "offset": -0.5}]
)
def test_sine_positions(options):
    height, width, channels = 3, 5, 8
    found = sine_positions((height, width), channels, device=torch.device("cpu"), **options)
    assert found.shape == (height, width, channels) and found.dtype == torch.float32
    temperature, scale = options.get("temperature", 1e4), options.get("scale", 2 * math.pi)
    for row in range(height):
        for column in range(width):
            expected = []
            for place, side in ((row + 1, height), (column + 1, width)):
                if options.get("normalize", True):
                    place = (place + options.get("offset", 0.0)) / (side + 1e-6) * scale
                for i in range(channels // 4):
                    angle = place / temperature ** (2 * i / (channels // 2))
                    expected += [math.sin(angle), math.cos(angle)]
            torch.testing.assert_close(found[row, column], torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_attention_is_torchs():
    ours = randomize(Attention(8, 2)).double()
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    layers = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.data.copy_(torch.cat([layer.weight for layer in layers]))
    theirs.in_proj_bias.data.copy_(torch.cat([layer.bias for layer in layers]))
    theirs.out_proj.load_state_dict(ours.project.state_dict())
    queries, keys, values = (torch.randn(2, n, 8, dtype=torch.float64) for n in (3, 5, 5))
    torch.testing.assert_close(ours(queries, keys, values), theirs(queries, keys, values)[0])
    allowed = torch.rand(2, 3, 5) > 0.5
    allowed[..., 0] = True
    expected = theirs(queries, keys, values, attn_mask=~allowed.repeat_interleave(2, dim=0))[0]
    torch.testing.assert_close(ours(queries, keys, values, allowed), expected)


def test_an_empty_mask_looks_everywhere():
    masks = torch.full((1, 3, 2, 2), -1.0)
    masks[0, 1, 0, 1] = 2.0
    masks[0, 2] = 0.0  # as likely as not is inside
    assert attended_pixels(masks, (2, 2)).tolist() == [[[True] * 4, [False, True, False, False], [True] * 4]]
    assert attended_pixels(masks, (1, 1)).tolist() == [[[True], [True], [True]]]
    rows = [[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert attended_pixels(masks, (4, 4))[0, 1].reshape(4, 4).int().tolist() == rows


def test_queries_see_what_is_inside_of_their_masks_only():
    torch.manual_seed(0)
    decoder = create_model("mask2former", bands=3, num_classes=2, **TINY).query_decoder.eval()
    maps = [torch.randn(1, 32, size, size) for size in (2, 4, 8)]
    features, found = torch.randn(1, 8, 16, 16), []
    decoder.layers[0].cross_attention.register_forward_hook(
        lambda _module, _inputs, out: found.append(out[0])
    )
    _, masks = decoder(maps, features)
    seen = attended_pixels(masks[0], (2, 2))[0]  # (Q, 4)
    assert seen.any() and not seen.all()
    for place in range(4):
        changed = maps[0].clone()
        changed.flatten(2)[..., place] += 5.0
        decoder([changed, *maps[1:]], features)
        same = [torch.allclose(found[0][query], found[-1][query], atol=1e-6) for query in range(5)]
        assert same == (~seen[:, place]).tolist()


def test_sum_of_masks_is_a_loop_over_queries():
    queries, classes = QUERIES_AT_ONCE + 3, 4
    class_logits = torch.randn(2, queries, classes + 1, dtype=torch.float64)
    mask_logits = torch.randn(2, queries, 3, 4, dtype=torch.float64) * 3
    large = torch.nn.functional.interpolate(mask_logits, (9, 11), mode="bilinear")
    expected = torch.zeros(2, classes, 9, 11, dtype=torch.float64)
    for q in range(queries):
        chance = class_logits[:, q].exp() / class_logits[:, q].exp().sum(-1, keepdim=True)
        for k in range(classes):
            expected[:, k] += chance[:, k, None, None] / (1 + (-large[:, q]).exp())
    torch.testing.assert_close(sum_of_masks(class_logits, mask_logits, (9, 11)), expected)
    with torch.autocast("cpu", torch.bfloat16):
        half = sum_of_masks(class_logits.bfloat16(), mask_logits.bfloat16(), (9, 11))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected.float(), rtol=0.05, atol=0.05)


def test_probabilities_are_shares_of_the_sums():
    network = create_model("mask2former", bands=1, num_classes=3, **TINY)
    sums = torch.tensor([2.0, 1.0, 1.0, 0.0, 0.0, 0.0]).reshape(1, 2, 3).transpose(1, 2)[..., None]
    scores = network.probabilities({"logits": sums})
    torch.testing.assert_close(scores[0, :, 0, 0], torch.tensor([0.5, 0.25, 0.25]))
    torch.testing.assert_close(scores[0, :, 1, 0], torch.full((3,), 1 / 3))


@pytest.mark.parametrize("training", [True, False])
def test_outputs(training):
    network = create_model("mask2former", bands=3, num_classes=1, **TINY).train(training)
    outputs = network(torch.randn(2, 3, 65, 97))
    assert outputs["logits"].shape == (2, 1, 65, 97)
    assert [tuple(part.shape) for part in outputs["mask_logits"]] == [(2, 5, 17, 25)] * 5
    assert [tuple(part.shape) for part in outputs["class_logits"]] == [(2, 5, 2)] * 5
    last = (outputs["class_logits"][-1], outputs["mask_logits"][-1], (65, 97))
    torch.testing.assert_close(outputs["logits"], sum_of_masks(*last))
    outputs["logits"].sum().backward()
    assert network.query_decoder.classifier.weight.grad.abs().sum() > 0


def test_levels_and_projection():
    for levels in (1, 2, 4):
        network = create_model(
            "mask2former", bands=3, num_classes=2, **TINY, levels=levels, decoder_channels=16
        )
        assert network(torch.randn(2, 3, 64, 64))["logits"].shape == (2, 2, 64, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 5}, "levels=5 is given; 1 to 4 is allowed"),
        ({"channels": 48}, "channels=48 is given; it must be a multiple of norm_groups=32"),
        ({"decoder_channels": 36}, "decoder_channels=36 is given; it must be a multiple of heads=8"),
        ({"backbone": "vit_small_patch14_dinov2"}, "mask2former: backbone .*four sizes are needed"),
    ],
)
def test_mistakes(options, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        create_model("mask2former", bands=3, num_classes=2, **options)
