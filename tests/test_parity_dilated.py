"""FCN, PSPNet, DeepLab and U-Net compute what MMSegmentation computes, in double precision."""

import pytest

from tests.helpers import shared_parity
from tools.parity_runner import run

SMALLEST = [
    "fcn_r18",
    "fcn_r50_769_align",
    "pspnet_r18",
    "pspnet_r50-d32",
    "deeplabv3_r18",
    "deeplabv3plus_r18",
    "mobilenetv2_fcn",
    "mobilenetv2_deeplabv3plus",
    "unet_fcn",
    "unet_pspnet",
]


@pytest.mark.parametrize("name", SMALLEST)
def test_reference(name):
    reference = shared_parity(name)
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7
