"""HRNet and OCRNet: OpenMMLab's configurations, and its logits where the references are here."""

import pytest
import torch

from nets import create_model
from nets.backbones.hrnet import HRNET_SIZES, HRNet
from nets.errors import UserError
from nets.importers.mmseg_hrnet import hrnet_width, translate
from nets.importers.mmseg_ocrnet import translate as translate_ocrnet
from nets.importers.openmmlab import load_openmmlab
from nets.importers.placing import place_weights, rename
from nets.models.ocrnet import gather_regions
from tests.helpers import shared_parity
from tools.parity_runner import run

BN = {"type": "SyncBN", "requires_grad": True}


@pytest.mark.parametrize("name", ["fcn_hr18s", "fcn_hr18", "ocrnet_hr18"])
def test_logits_are_openmmlabs(name):
    reference = shared_parity(name)
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


def test_ocrnet_on_a_resnet_is_openmmlabs():
    reference = shared_parity("ocrnet_r101")
    images = reference.images[:1]
    logits = run(reference.checkpoint, images)
    own = logits[:, :, reference.offset :: reference.stride, reference.offset :: reference.stride]
    deviation = abs(own - reference.logits[:1]).max() / reference.logits.std()
    assert deviation < 1e-7


def section(width: str) -> dict:
    size = HRNET_SIZES[f"hrnet_{width}"]
    extra = {"stage1": {"block": "BOTTLENECK", "num_blocks": (size.first_blocks,), "num_channels": (64,)}}
    extra["stage1"] |= {"num_branches": 1, "num_modules": 1}
    for i, modules in enumerate(size.modules, start=2):
        widths = tuple(size.width * 2**j for j in range(i))
        stage = {"block": "BASIC", "num_blocks": (size.blocks,) * i, "num_channels": list(widths)}
        extra[f"stage{i}"] = stage | {"num_branches": i, "num_modules": modules}
    return {"type": "HRNet", "extra": extra, "norm_cfg": BN, "norm_eval": False}


@pytest.mark.parametrize("width", ["w18s", "w18", "w32", "w48"])
def test_configurations_of_all_widths(width):
    assert hrnet_width(section(width)) == width
    other = section(width)
    other["extra"]["stage3"]["num_modules"] = 9
    with pytest.raises(UserError, match="which no HRNet here has; there are: hrnet_w18s"):
        hrnet_width(other)


def fcn_head(**changes: object) -> dict:
    return {
        "type": "FCNHead", "in_index": (0, 1, 2, 3), "in_channels": [18, 36, 72, 144], "channels": 270,
        "num_convs": 1,
        "input_transform": "resize_concat", "kernel_size": 1, "concat_input": False, "dropout_ratio": -1,
        "num_classes": 5, "norm_cfg": BN, "align_corners": True, **changes,
    }  # fmt: skip


def test_version_1_drops_the_exchange_nobody_uses():
    head = fcn_head(in_index=0, input_transform=None, in_channels=18, channels=18)
    theirs = {f"backbone.{key}": value for key, value in HRNet("hrnet_w18s", bands=3).state_dict().items()}
    family, options, rules = translate({"backbone": section("w18s"), "decode_head": head}, list(theirs))
    assert (family, options["version"], options["align_corners"], options["dropout"]) == (
        "hrnet",
        "v1",
        True,
        0.0,
    )
    network = create_model(family, bands=3, num_classes=5, **options)
    own = {f"decode_head.{key}": value for key, value in (
        ("conv_seg.weight", network.classifier.weight), ("conv_seg.bias", network.classifier.bias),
        ("convs.0.conv.weight", network.decoder.convs[0].conv.weight),
        *((f"convs.0.bn.{k}", v) for k, v in network.decoder.convs[0].norm.state_dict().items()),
    )}  # fmt: skip
    place_weights(network, rename({**theirs, **own}, rules))
    assert torch.equal(network.backbone.conv1.weight, theirs["backbone.conv1.weight"])


def test_head_options_are_kept():
    _, options, _ = translate(
        {"backbone": section("w48"), "decode_head": fcn_head(channels=64, dropout_ratio=0.2)}, []
    )
    network = create_model("hrnet", bands=4, num_classes=5, **options)
    assert network.decoder.out_channels == 64 and network.dropout.p == 0.2 and network.align_corners
    with pytest.raises(UserError, match="the first or all four are needed"):
        translate({"backbone": section("w18"), "decode_head": fcn_head(in_index=(1, 2))}, [])


def test_ocrnet_needs_the_cascade():
    ocr = fcn_head(type="OCRHead", ocr_channels=8)
    with pytest.raises(UserError, match="an FCNHead, an OCRHead and no auxiliary head are needed"):
        translate_ocrnet({"backbone": section("w18"), "decode_head": ocr}, [])
    for key in ("num_convs", "kernel_size", "concat_input"):
        del ocr[key]
    heads = [fcn_head(num_classes=3), ocr]
    with pytest.raises(UserError, match="FCNHead has 3 classes and OCRHead 5"):
        translate_ocrnet({"backbone": section("w18"), "decode_head": heads}, [])
    with pytest.raises(UserError, match="scale=2"):
        translate_ocrnet({"backbone": section("w18"), "decode_head": [fcn_head(), {**ocr, "scale": 2}]}, [])


def test_regions_are_means_weighted_by_class():
    pixels = torch.randn(2, 6, 4, 5)
    coarse = torch.full((2, 3, 4, 5), -50.0)
    coarse[:, 0] = 0.0  # everywhere alike
    coarse[:, 1, 2, 3] = 50.0  # one pixel alone
    regions = gather_regions(pixels, coarse)
    assert regions.shape == (2, 6, 3, 1)
    torch.testing.assert_close(regions[:, :, 0, 0], pixels.mean(dim=(2, 3)))
    torch.testing.assert_close(regions[:, :, 1, 0], pixels[:, :, 2, 3])


def test_ocrnet_trains_on_both_predictions():
    network = create_model("ocrnet", bands=3, num_classes=4, backbone="W18-S", channels=32, key_channels=16)
    assert network.blueprint["options"]["backbone"] == "w18s"
    outputs = network(torch.randn(2, 3, 65, 97))
    assert outputs["aux"][0].shape == outputs["logits"].shape == (2, 4, 65, 97)
    assert "aux" not in network.eval()(torch.randn(1, 3, 64, 64))


def test_version_1_and_2_use_what_they_say():
    with torch.device("meta"):
        first, second = (
            create_model("hrnet", bands=3, num_classes=4, version=version) for version in ("v1", "v2")
        )
    assert first.backbone.channels == [18] and second.backbone.channels == [18, 36, 72, 144]
    assert second.decoder.out_channels == 270 and first.decoder.out_channels == 18


@pytest.mark.parametrize("name", ["fcn_hr18s"])
def test_what_the_checkpoint_says_is_kept(name):
    network = load_openmmlab(shared_parity(name).checkpoint)
    assert network.blueprint["name"] == "hrnet" and network.blueprint["options"]["backbone"] == "w18s"
    assert network.num_classes == 19 and network.mean.tolist() == pytest.approx([123.675, 116.28, 103.53])
