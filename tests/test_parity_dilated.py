"""FCN, PSPNet, DeepLab and U-Net compute what MMSegmentation computes, in double precision."""

import pytest

from tests.helpers import shared_parity
from tools.parity_runner import run


@pytest.mark.parametrize("name", ["fcn_r18", "mobilenetv2_fcn"])
def test_reference(name):
    reference = shared_parity(name)
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7
