"""Files of STDC, DDRNet and PIDNet in their authors' naming fill the backbones here."""

import pytest
import torch

from nets import create_model
from nets.importers.authors_backbones import without_biases
from nets.models.stdc import BLOCKS
from tests.backbone_file_helpers import fills, renamed
from tests.helpers import randomize


def numbered(pattern: str, conv: str, norm: str) -> list[tuple[str, str]]:
    return [(rf"{pattern}\.conv\.", conv), (rf"{pattern}\.norm\.", norm)]


BLOCK = [
    (r"(.*)\.convs\.(\d)\.conv\.", lambda m: f"{m[1]}.conv{int(m[2]) + 1}."),
    (r"(.*)\.convs\.(\d)\.norm\.", lambda m: f"{m[1]}.bn{int(m[2]) + 1}."),
    *numbered(r"(.*)\.shortcut", r"\1.downsample.0.", r"\1.downsample.1."),
]
STEM = [
    (r"stem\.([01])\.conv\.", lambda m: f"conv1.{3 * int(m[1])}."),
    (r"stem\.([01])\.norm\.", lambda m: f"conv1.{3 * int(m[1]) + 1}."),
]


def with_biases(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return DDRNet's or PIDNet's weights with the biases that the authors' stems have."""
    for i in (0, 3):
        bias = torch.randn(len(state[f"conv1.{i}.weight"]))
        state[f"conv1.{i}.bias"] = bias
        state[f"conv1.{i + 1}.running_mean"] = state[f"conv1.{i + 1}.running_mean"] + bias
    return state


@pytest.mark.parametrize("name", ["stdc1", "stdc2"])
@pytest.mark.parametrize("bottleneck", ["cat", "add"])
def test_stdc_of_the_authors(name, bottleneck, tmp_path):
    options = {"bands": 3, "num_classes": 2, "backbone": name, "bottleneck": bottleneck}
    options["widths"] = (8, 8, 32, 64, 128)
    one, two = (create_model("stdc", **options).backbone for _ in range(2))
    places = ["0", "1", *(f"{i + 2}.{j}" for i, count in enumerate(BLOCKS[name]) for j in range(count))]
    patterns = []
    for i, place in enumerate(places):
        ours = rf"stages\.{place}".replace("..", r"\.")
        theirs = f"features.{i}"
        patterns += [
            (rf"{ours}\.convs\.(\d)\.conv\.", rf"{theirs}.conv_list.\1.conv."),
            (rf"{ours}\.convs\.(\d)\.norm\.", rf"{theirs}.conv_list.\1.bn."),
            *numbered(rf"{ours}\.down", f"{theirs}.avd_layer.0.", f"{theirs}.avd_layer.1."),
            *numbered(rf"{ours}\.skip\.0", f"{theirs}.skip.0.", f"{theirs}.skip.1."),
            *numbered(rf"{ours}\.skip\.1", f"{theirs}.skip.2.", f"{theirs}.skip.3."),
            *numbered(ours, f"{theirs}.conv.", f"{theirs}.bn."),
        ]
    assert fills(one, renamed(randomize(one), patterns), two, tmp_path / "x.pth") == []


@pytest.mark.parametrize("size", ["23slim", "39"])
def test_ddrnet_of_the_authors(size, tmp_path):
    one, two = (
        create_model("ddrnet", bands=3, num_classes=2, backbone=size, width=8).backbone for _ in range(2)
    )
    patterns = [*STEM, (r"stem\.([24])\.", lambda m: f"layer{int(m[1]) // 2}.")]
    for i, part in enumerate(("3_1", "3_2", "4") if size == "39" else ("3", "4")):
        patterns += [
            (rf"stages\.{i}\.deep\.", f"layer{part}."),
            (rf"stages\.{i}\.fine\.", f"layer{part}_."),
            *numbered(rf"stages\.{i}\.compress", f"compression{part}.0.", f"compression{part}.1."),
            *numbered(rf"stages\.{i}\.down\.0", f"down{part}.0.", f"down{part}.1."),
            *numbered(rf"stages\.{i}\.down\.1", f"down{part}.3.", f"down{part}.4."),
        ]
    patterns += [(r"deep_last\.", "layer5."), (r"fine_last\.", "layer5_.")]
    state = with_biases(renamed(randomize(one), patterns, BLOCK))
    # A file for classification has no pyramid aggregation.
    left_out = fills(one, {k: v for k, v in state.items() if "pyramid" not in k}, two, tmp_path / "x.pth")
    assert left_out and all(line.startswith("pyramid.") for line in left_out)


@pytest.mark.parametrize("size", ["s", "l"])
def test_pidnet_of_the_authors(size, tmp_path):
    one, two = (
        create_model("pidnet", bands=3, num_classes=2, backbone=size, width=8).backbone for _ in range(2)
    )
    patterns = [*STEM, (r"stem\.([24])\.", lambda m: f"layer{int(m[1]) // 2}.")]
    for i in range(3):
        single = i == 0 or (i == 1 and size == "l")
        patterns += [
            (rf"deep\.{i}\.", f"layer{i + 3}."),
            (rf"fine\.{i}\.", f"layer{i + 3}_."),
            (rf"boundary\.{i}\.", f"layer{i + 3}_d." if single else f"layer{i + 3}_d.0."),
            *numbered(rf"compress\.{i}", f"compression{i + 3}.0.", f"compression{i + 3}.1."),
            *numbered(rf"tell\.{i}", f"diff{i + 3}.0.", f"diff{i + 3}.1."),
            *numbered(rf"guide\.{i}\.fine", f"pag{i + 3}.f_x.0.", f"pag{i + 3}.f_x.1."),
            *numbered(rf"guide\.{i}\.deep", f"pag{i + 3}.f_y.0.", f"pag{i + 3}.f_y.1."),
        ]
    patterns += [
        *numbered(r"fuse\.fine", "dfm.conv_p.0.", "dfm.conv_p.1."),
        *numbered(r"fuse\.deep", "dfm.conv_i.0.", "dfm.conv_i.1."),
        *numbered(r"fuse\.conv", "dfm.conv.2.", "dfm.conv.0."),
        *numbered(r"pyramid\.project", "spp.scale0.2.", "spp.scale0.0."),
        (r"pyramid\.scales\.(\d)\.1\.conv\.", lambda m: f"spp.scale{int(m[1]) + 1}.3."),
        (r"pyramid\.scales\.(\d)\.1\.norm\.", lambda m: f"spp.scale{int(m[1]) + 1}.1."),
        (r"pyramid\.convs\.(\d)\.conv\.", lambda m: f"spp.process{int(m[1]) + 1}.2."),
        (r"pyramid\.convs\.(\d)\.norm\.", lambda m: f"spp.process{int(m[1]) + 1}.0."),
        *numbered(r"pyramid\.convs", "spp.scale_process.2.", "spp.scale_process.0."),
        *numbered(r"pyramid\.join", "spp.compression.2.", "spp.compression.0."),
        *numbered(r"pyramid\.shortcut", "spp.shortcut.2.", "spp.shortcut.0."),
    ]
    state = with_biases(renamed(randomize(one), patterns, BLOCK))
    assert fills(one, state, two, tmp_path / "x.pth") == []


@torch.inference_mode()
def test_a_bias_in_front_of_a_batch_norm_goes_into_its_mean():
    conv, norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)
    layer = randomize(torch.nn.Sequential(conv, norm)).double().eval()
    images = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    wanted = layer(images)
    state = {f"backbone.conv1.{key}": value for key, value in layer.state_dict().items()}
    state = without_biases(state)
    assert "backbone.conv1.0.bias" not in state
    conv.bias.zero_()
    norm.running_mean.copy_(state["backbone.conv1.1.running_mean"])
    torch.testing.assert_close(layer(images), wanted)
