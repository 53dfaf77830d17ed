"""Whole-image prediction at any size, and the class map and shares that are made of it."""

import numpy as np
import pytest
import torch
from affine import Affine
from rasterio.crs import CRS
from torch import nn

from utils.data.labels import Classes
from utils.data.raster import RasterInfo
from utils.devices import place_for_prediction
from utils.inference.class_map import ClassTotals, pixel_area, to_class_map
from utils.inference.whole import memory_format_of, predict_whole, predictor

CPU = torch.device("cpu")
CLASSES = Classes(("ice", "debris", "rock"), ((1, 2, 3), (4, 5, 6), (7, 8, 9)), {0: 0, 1: 1, 2: 2}, ())


class Pointwise(nn.Module):
    """A network of one 1x1 convolution with the promises of a real one."""

    min_size = 32
    size_divisor = 16

    def __init__(self, bands: int = 3, num_classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bands, self.num_classes = bands, num_classes
        self.layer = nn.Conv2d(bands, num_classes, 1)
        self.sizes: list[tuple[int, int]] = []

    def forward(self, images):
        self.sizes.append(tuple(images.shape[-2:]))
        return {"logits": self.layer(torch.nan_to_num(images))}

    def probabilities(self, outputs):
        return outputs["logits"].softmax(1)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (33, 31), (64, 48)])
def test_any_size_is_padded_to_the_rules_and_cropped_back(size):
    network = Pointwise().eval()
    image = np.random.default_rng(0).normal(size=(3, *size)).astype(np.float32)
    result = predict_whole(predictor(network, CPU), image, np.ones(size, bool), 3)
    assert all(side % 16 == 0 and side >= 32 for side in network.sizes[0])
    with torch.inference_mode():
        expected = network.layer(torch.from_numpy(image)[None]).softmax(1)[0].numpy()
    assert result.shape == (3, *size)
    assert result.dtype == np.float32
    assert np.abs(result - expected).max() < 1e-6


def test_invalid_pixels_are_nan_and_never_reach_the_network():
    network = Pointwise().eval()
    image = np.ones((3, 40, 40), np.uint16)
    image[:, :5] = 65000
    valid = np.ones((40, 40), bool)
    valid[:5] = False
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    result = predict_whole(predictor(network, CPU), image, valid, 3)
    assert seen[0][..., :5, :].isnan().all()
    assert seen[0].nan_to_num().max() == 1
    assert np.array_equal(np.isnan(result[0]), ~valid)
    assert np.isnan(predict_whole(predictor(network, CPU), image, valid & False, 3)).all()
    assert len(seen) == 1  # without a valid pixel the network is not asked


def test_predictor_takes_a_data_parallel_network():
    network = nn.DataParallel(Pointwise().eval(), device_ids=None)
    assert predictor(network, CPU)(torch.zeros(2, 3, 20, 50)).shape == (2, 3, 20, 50)


@pytest.mark.parametrize(("kernel", "last"), [(1, False), (3, True)])
def test_on_the_cpu_images_and_weights_of_wide_convolutions_lie_channels_last(kernel, last):
    network = Pointwise().eval()
    network.layer = nn.Conv2d(3, 3, kernel, padding=kernel // 2)
    images = torch.rand(2, 3, 40, 50)
    usual, strides = predictor(network, CPU)(images), network.layer.weight.stride()
    assert memory_format_of(network) is torch.contiguous_format
    seen = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    found = predictor(place_for_prediction(network, CPU), CPU)(images)
    assert seen[0].shape == (2, 3, 48, 64)
    assert seen[0].is_contiguous(memory_format=torch.channels_last) is last
    assert (network.layer.weight.stride() == strides) is not last  # PyTorch would take 1x1 ones by them
    assert (found - usual).abs().max() < 1e-6


def test_class_map_marks_no_data_and_grows_to_16_bit():
    probabilities = torch.zeros(3, 2, 2)
    probabilities[2, 0, 0] = probabilities[1, 0, 1] = 1
    valid = np.array([[True, True], [True, False]])
    class_map = to_class_map(probabilities, valid, 3)
    assert class_map.dtype == np.uint8
    assert class_map.tolist() == [[2, 1], [0, 255]]
    alike = torch.tensor([0.2, 0.4, 0.4, 0.1])[:, None, None].expand(4, 2, 2)
    assert to_class_map(alike, valid, 4).tolist() == [[1, 1], [1, 255]]  # the first of equal ones
    random = torch.rand(300, 40, 50)
    assert np.array_equal(to_class_map(random, np.ones((40, 50), bool), 300), random.argmax(0))
    many = torch.zeros(256, 1, 2)
    many[255, 0, 0] = 1
    assert to_class_map(many, np.array([[True, False]]), 256).tolist() == [[255, 65535]]
    assert to_class_map(None, np.zeros((1, 2), bool), 3).tolist() == [[255, 255]]


def test_shares_and_areas():
    totals = ClassTotals(CLASSES)
    totals.add(np.array([[0, 0, 1, 255]], np.uint8), 1e6)
    totals.add(np.array([[2]], np.uint8), 4e6)
    lines = totals.table().splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["ice", "50.00", "%", "2.000", "km²"],
        ["debris", "25.00", "%", "1.000", "km²"],
        ["rock", "25.00", "%", "4.000", "km²"],
    ]
    assert lines[3].split() == ["no", "data", "1", "pixels,", "not", "counted"]
    unknown = ClassTotals(CLASSES)
    unknown.add(np.array([[0]], np.uint8), None)
    totals.merge(unknown)
    assert "km²" not in totals.table()
    assert "60.00 %" in totals.table()


@pytest.mark.parametrize(
    ("epsg", "transform", "area"),
    [
        (32633, Affine(10, 0, 5e5, 0, -20, 5e6), 200.0),
        (32633, Affine(8, 6, 0, 6, -8, 0), 100.0),
        (2263, Affine(1, 0, 0, 0, -1, 0), 0.3048**2),  # US survey feet
        (4326, Affine(0.1, 0, 0, 0, -0.1, 0), None),
        (3857, Affine(10, 0, 0, 0, -10, 0), None),
        (None, Affine(10, 0, 0, 0, -10, 0), None),
        (32633, None, None),
    ],
)
def test_pixel_area_only_where_coordinates_are_lengths(tmp_path, epsg, transform, area):
    crs = CRS.from_epsg(epsg).to_wkt() if epsg else None
    info = RasterInfo(tmp_path, 1, 1, 1, "uint8", (None,), crs, transform, None)
    assert pixel_area(info) == (area if area is None else pytest.approx(area, rel=1e-4))
