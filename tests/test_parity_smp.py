"""Networks of segmentation_models.pytorch, random weights, in ours: equal logits in double precision."""

import pytest
import torch

from nets import create_model
from nets.errors import UserError
from nets.importers.placing import place_weights
from nets.importers.smp_models import read_smp
from tests.helpers import randomize

smp = pytest.importorskip("segmentation_models_pytorch")


@pytest.mark.parametrize(
    ("name", "encoder", "theirs", "unseen"),
    [
        ("Unet", "resnet18", {"in_channels": 4}, {}),
        ("Unet", "resnet50", {"decoder_channels": (64, 32, 16, 16, 8)}, {}),
        ("PSPNet", "resnet18", {}, {}),
        ("PSPNet", "resnet50", {"encoder_depth": 4, "psp_out_channels": 64, "upsampling": 16}, {}),
        ("DeepLabV3", "resnet18", {}, {}),
        ("DeepLabV3Plus", "resnet18", {"decoder_channels": 64}, {}),
        ("DeepLabV3Plus", "resnet50", {}, {}),
        (
            "DeepLabV3Plus",
            "resnet18",
            {"encoder_output_stride": 8, "decoder_atrous_rates": (3, 6, 9)},
            {"output_stride": 8, "dilations": (3, 6, 9)},
        ),
    ],
)
def test_same_logits(name, encoder, theirs, unseen):
    network = getattr(smp, name)(encoder_name=encoder, encoder_weights=None, classes=5, **theirs)
    randomize(network).double().eval()
    blueprint, weights = read_smp(network.state_dict(), **unseen)
    ours = create_model(blueprint["name"], **blueprint["options"])
    place_weights(ours, weights)
    ours.double().eval()
    bands = theirs.get("in_channels", 3)
    # Sides that segmentation_models.pytorch takes: multiples of its encoder's stride.
    images = torch.randn(1, bands, 64, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        expected = network(images)
        torch.testing.assert_close(ours(images)["logits"], expected, rtol=0, atol=1e-9 * expected.std())


def test_other_weights_are_refused():
    with pytest.raises(UserError, match="not the weights of a segmentation_models"):
        read_smp({})
    network = smp.Linknet("resnet18", encoder_weights=None)
    with pytest.raises(UserError, match="only Unet, PSPNet, DeepLabV3 and DeepLabV3Plus"):
        read_smp(network.state_dict())
    plain = smp.DeepLabV3Plus("resnet18", encoder_weights=None)
    with pytest.raises(UserError, match="output_stride=32"):
        read_smp(plain.state_dict(), output_stride=32)
