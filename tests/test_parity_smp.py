"""Networks of segmentation_models.pytorch, random weights, in ours: equal logits in double precision."""

import pytest
import torch

from nets import create_model
from nets.errors import UserError
from nets.importers.placing import place_weights
from nets.importers.smp_models import read_smp
from Structure import load_network
from tests.helpers import randomize
from utils.data.labels import Classes

smp = pytest.importorskip("segmentation_models_pytorch")


SCSE = {"decoder_attention_type": "scse"}
# class, encoder, its arguments, what a state dict does not show
NETWORKS = [
    ("Unet", "resnet18", {"in_channels": 4}, {}),
    ("Unet", "resnet50", {"decoder_channels": (64, 32, 16, 16, 8)}, {}),
    ("Unet", "resnet18", {"encoder_depth": 4, "decoder_channels": (32, 16, 16, 16), **SCSE}, {}),
    ("Unet", "resnext50_32x4d", {"decoder_channels": (16, 16, 16, 16, 16)}, {}),
    ("Unet", "vgg11", {"decoder_channels": (16, 16, 16, 16, 16), "decoder_use_norm": False}, {}),
    ("Unet", "mit_b0", SCSE, {}),
    ("Unet", "efficientnet-b0", {}, {}),
    ("Unet", "timm-efficientnet-b0", {"encoder_depth": 4, "decoder_channels": (32, 16, 16, 16)}, {}),
    ("Unet", "mobilenet_v2", {}, {}),
    ("Unet", "densenet121", {}, {}),
    ("Linknet", "densenet121", {"encoder_depth": 3}, {}),
    ("Unet", "se_resnet50", {"decoder_channels": (16, 16, 16, 16, 16)}, {}),
    ("Linknet", "mobilenet_v2", {"encoder_depth": 4}, {}),
    ("DeepLabV3Plus", "mobilenet_v2", {"decoder_channels": 32}, {}),
    ("DeepLabV3", "mobilenet_v2", {"decoder_channels": 32}, {"output_stride": 8}),
    ("Unet", "tu-convnext_tiny", {"decoder_channels": (32, 16, 16, 16, 8)}, {}),
    ("Unet", "tu-resnet18", {"encoder_depth": 3, "decoder_channels": (32, 16, 16)}, {}),
    ("Unet", "tu-mobilenetv3_small_100", {}, {}),
    ("UnetPlusPlus", "resnet18", {}, {}),
    ("UnetPlusPlus", "resnet34", {"encoder_depth": 3, "decoder_channels": (32, 16, 16), **SCSE}, {}),
    ("UnetPlusPlus", "vgg11_bn", {"decoder_channels": (16, 16, 16, 16, 16)}, {}),
    ("UnetPlusPlus", "tu-convnext_tiny", {"decoder_channels": (32, 16, 16, 16, 8)}, {}),
    ("Linknet", "resnet18", {"in_channels": 1}, {}),
    ("Linknet", "resnet50", {"encoder_depth": 4, "decoder_use_norm": False}, {}),
    ("MAnet", "resnet18", {}, {}),
    ("MAnet", "mit_b0", {"decoder_channels": (64, 32, 16, 16, 8), "decoder_pab_channels": 16}, {}),
    ("PAN", "resnet18", {}, {}),
    ("PAN", "resnet18", {"encoder_output_stride": 32, "decoder_channels": 16}, {"output_stride": 32}),
    ("PAN", "tu-resnet18", {"encoder_depth": 4, "encoder_output_stride": 32}, {"output_stride": 32}),
    ("FPN", "resnet18", {}, {}),
    ("FPN", "resnet50", {"decoder_merge_policy": "cat", "decoder_pyramid_channels": 64}, {}),
    ("FPN", "tu-convnext_tiny", {}, {}),
    ("UPerNet", "resnet18", {"decoder_channels": 64}, {}),
    ("UPerNet", "mit_b0", {"decoder_channels": 64}, {}),
    ("UPerNet", "tu-convnext_tiny", {"decoder_channels": 64}, {}),
    ("Segformer", "mit_b0", {"decoder_segmentation_channels": 64}, {}),
    ("PSPNet", "resnet18", {}, {}),
    ("PSPNet", "resnet50", {"encoder_depth": 4, "psp_out_channels": 64, "upsampling": 16}, {}),
    ("PSPNet", "tu-resnet18", {}, {}),
    ("DeepLabV3", "resnet18", {}, {}),
    ("DeepLabV3Plus", "resnet18", {"decoder_channels": 64}, {}),
    ("DeepLabV3Plus", "resnet50", {}, {}),
    ("DeepLabV3Plus", "tu-resnet18", {"decoder_channels": 64}, {}),
    (
        "DeepLabV3Plus",
        "resnet18",
        {"encoder_output_stride": 8, "decoder_atrous_rates": (3, 6, 9)},
        {"output_stride": 8, "dilations": (3, 6, 9)},
    ),
]


def translated(theirs: torch.nn.Module, **arguments: object) -> torch.nn.Module:
    """Return our network with another's weights in double precision."""
    blueprint, weights = read_smp(theirs.state_dict(), **arguments)
    ours = create_model(blueprint["name"], **blueprint["options"])
    place_weights(ours, weights)
    return ours.double().eval()


@pytest.mark.parametrize(
    ("name", "encoder", "theirs", "unseen"), NETWORKS, ids=[f"{n}-{e}-{len(t)}" for n, e, t, _ in NETWORKS]
)
def test_same_logits(name, encoder, theirs, unseen):
    network = getattr(smp, name)(encoder_name=encoder, encoder_weights=None, classes=5, **theirs)
    randomize(network).double().eval()
    ours = translated(network, **unseen)
    bands = theirs.get("in_channels", 3)
    # Sides that segmentation_models.pytorch takes: multiples of its encoder's stride, and large enough for
    # the pyramid of PAN.
    size = (256, 256) if name == "PAN" else (64, 96)
    images = torch.randn(1, bands, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        expected = network(images)
        torch.testing.assert_close(ours(images)["logits"], expected, rtol=0, atol=1e-9 * expected.std())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Unet", {"encoder_name": "tu-tf_efficientnet_b0", "decoder_interpolation": "bilinear"}),
        ("PAN", {"encoder_name": "resnet18", "encoder_output_stride": 32}),
    ],
)
def test_a_folder_says_what_the_weights_do_not(name, arguments, tmp_path):
    theirs = getattr(smp, name)(encoder_weights=None, classes=3, **arguments)
    randomize(theirs).eval().save_pretrained(tmp_path / "hub")
    ours = load_network(tmp_path / "hub").double()
    theirs.double()
    images = torch.rand(1, 3, 256, 256, dtype=torch.float64) * 255
    with torch.inference_mode():
        expected = theirs(ours.normalize(images))
        torch.testing.assert_close(ours(images)["logits"], expected, rtol=0, atol=1e-6 * expected.std())


def test_one_class_is_there_or_not(tmp_path):
    theirs = randomize(smp.Linknet("resnet18", encoder_weights=None)).eval()
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    ours = load_network(tmp_path / "x.pth")
    assert (
        ours.num_classes == 1 and Classes.from_dict(ours.about["classes"]).task == ours.task == "multilabel"
    )
    images = torch.rand(1, 3, 64, 96) * 255
    with torch.inference_mode():
        scores = ours.probabilities(ours(images))
        torch.testing.assert_close(scores, theirs(ours.normalize(images)).sigmoid(), rtol=1e-4, atol=1e-4)


def test_other_weights_are_refused():
    with pytest.raises(UserError, match="not the weights of a network of segmentation_models"):
        read_smp({})
    state = {"segmentation_head.0.weight": torch.zeros(1), "encoder.x": torch.zeros(1)}
    with pytest.raises(UserError, match=r"this decoder of segmentation_models\.pytorch is not known here"):
        read_smp(state)
    with torch.device("meta"):
        network = smp.Unet("xception", encoder_weights=None)
        plain = smp.DeepLabV3Plus("resnet18", encoder_weights=None)
        dilated = smp.DeepLabV3Plus("efficientnet-b0", encoder_weights=None)
        segformer = smp.Segformer("resnet18", encoder_weights=None)
    with pytest.raises(UserError, match=r"the encoder of this network.*conv1\.weight"):
        read_smp(network.state_dict())
    with pytest.raises(UserError, match="output_stride=4"):
        read_smp(plain.state_dict(), output_stride=4)
    with pytest.raises(UserError, match="tf_efficientnet_b0 at output stride 16 cannot be imported"):
        read_smp(dilated.state_dict())
    with pytest.raises(UserError, match="Segformer on resnet18"):
        read_smp(segformer.state_dict())
