"""Networks of torchvision, random weights, loaded into ours: equal logits in double precision."""

import pytest
import torch

from nets import create_model
from nets.errors import UserError
from nets.importers.placing import place_weights
from nets.importers.torchvision_models import read_torchvision, resnet_name
from tests.helpers import randomize

mobilenet_v3_small = pytest.importorskip("torchvision.models").mobilenet_v3_small
segmentation = pytest.importorskip("torchvision.models.segmentation")


@pytest.mark.parametrize(
    ("name", "aux"),
    [
        ("fcn_resnet50", True),
        ("fcn_resnet50", False),
        ("deeplabv3_resnet50", True),
        ("deeplabv3_mobilenet_v3_large", True),
        ("lraspp_mobilenet_v3_large", None),
    ],
)
def test_same_logits(name, aux):
    more = {} if aux is None else {"aux_loss": aux}
    theirs = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5, **more)
    randomize(theirs).double().eval()
    blueprint, weights = read_torchvision(theirs.state_dict())
    ours = create_model(blueprint["name"], **blueprint["options"])
    place_weights(ours, weights)
    ours.double().eval()
    images = torch.randn(1, 3, 64, 97, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        expected = theirs(images)["out"]
        torch.testing.assert_close(ours(images)["logits"], expected, rtol=0, atol=1e-9 * expected.std())
        if aux:
            features = ours.backbone(images)
            own = theirs.aux_classifier(theirs.backbone(images)["aux"])
            torch.testing.assert_close(ours.aux_heads[0](features), own, rtol=0, atol=1e-9 * own.std())


def test_resnet_is_told_by_its_blocks():
    with torch.device("meta"):
        deep = segmentation.fcn_resnet101(weights=None, weights_backbone=None)
        other = mobilenet_v3_small(weights=None)
    assert resnet_name(deep.state_dict(), "backbone.") == "resnet101"
    state = {key.replace("features.", "backbone."): x for key, x in other.state_dict().items()}
    state["classifier.cbr.0.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match="no MobileNetV3 Large"):
        read_torchvision(state)


def test_other_weights_are_refused():
    with pytest.raises(UserError, match="not the weights of torchvision's FCN, DeepLabV3 or LR-ASPP"):
        read_torchvision({"classifier.0.weight": torch.zeros(1)})
