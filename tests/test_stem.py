"""Pretrained backbones: the stem for other bands, files, and what happens without internet."""

import urllib.error

import pytest
import safetensors.torch
import timm
import torch
import torchvision

from nets import create_model
from nets.backbones import pretrained
from nets.backbones.catalogue import create_backbone
from nets.backbones.plain_transformer import PlainTransformer
from nets.backbones.pretrained import load_pretrained
from nets.backbones.stem import adapt_stem, find_stem
from nets.errors import UserError


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6, 13])
def test_equal_bands_answer_as_equal_colours_did(bands):
    weight = torch.randn(8, 3, 7, 7, dtype=torch.float64)
    for how in ("rgb_mean", "repeat"):
        if how == "repeat" and bands % 3:
            continue
        adapted = adapt_stem(weight, bands, how)
        assert adapted.shape == (8, bands, 7, 7)
        torch.testing.assert_close(adapted.sum(1), weight.sum(1))


def test_formulas():
    red, green, blue = weight = torch.tensor([1.0, 2.0, 6.0])
    weight = weight.view(1, 3, 1, 1)
    assert torch.equal(adapt_stem(weight, 3, "rgb_mean"), weight)
    swapped = adapt_stem(weight, 3, "rgb_mean", (2, 1, 0))
    assert swapped.flatten().tolist() == [blue, green, red]
    sentinel = adapt_stem(weight, 6, "rgb_mean", (3, 2, 1)).flatten()
    torch.testing.assert_close(sentinel, 0.5 * torch.tensor([3.0, blue, green, red, 3.0, 3.0]))
    assert adapt_stem(weight, 1, "rgb_mean").flatten().tolist() == [9.0]
    assert adapt_stem(weight, 2, "rgb_mean").flatten().tolist() == [4.5, 4.5]
    torch.testing.assert_close(
        adapt_stem(weight, 4, "repeat").flatten(), 0.75 * torch.tensor([red, green, blue, red])
    )
    for bands in ((0, 1), (0, 0, 1), (0, 1, 4)):
        with pytest.raises(UserError, match="three different bands are needed"):
            adapt_stem(weight, 4, "rgb_mean", bands)
    six = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert adapt_stem(six, 3, "rgb_mean").flatten().tolist() == [5.0, 5.0, 5.0]
    assert adapt_stem(six, 3, "repeat").flatten().tolist() == [0.0, 2.0, 4.0]


def library_network(name: str) -> torch.nn.Module:
    torch.manual_seed(1)
    if name == "inception_v1":
        return torchvision.models.googlenet(weights=None, init_weights=False)
    if name == "shufflenet_v2_x0_5":
        return torchvision.models.shufflenet_v2_x0_5(weights=None)
    small = {"mlp_ratio": 0.001} if name.startswith("vgg") else {}
    return timm.create_model(
        {"hrnet_w18s": "hrnet_w18_small_v2", "swin_t": "swin_tiny_patch4_window7_224"}.get(name, name),
        **small,
    )


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11_bn", "densenet121", "inception_v3", "convnext_t", "swin_t", "hrnet_w18s",
             "inception_v1", "shufflenet_v2_x0_5"]
)  # fmt: skip
def test_the_librarys_file_fills_the_backbone(name, tmp_path):
    donor = library_network({"convnext_t": "convnext_tiny"}.get(name, name))
    # VGG's half a gigabyte for classification would only take time.
    state = {key: value for key, value in donor.state_dict().items() if "pre_logits" not in key}
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "x.pth")
    backbone = create_backbone(name, bands=5)
    assert load_pretrained(backbone, tmp_path / "x.pth", rgb_bands=(4, 2, 0)) == []
    stem, conv = find_stem(backbone)
    own = {pretrained.plain_name(k): v for k, v in backbone.state_dict().items()}
    theirs = {pretrained.plain_name(k): v for k, v in state.items()}
    for key, value in own.items():
        if key == pretrained.plain_name(f"{stem}.weight"):
            assert torch.equal(conv.weight, adapt_stem(theirs[key], 5, "rgb_mean", (4, 2, 0)))
        else:
            assert torch.equal(value, theirs[key]), key


def test_maps_equal_the_librarys(tmp_path):
    donor = timm.create_model("resnet18").eval()
    safetensors.torch.save_file(donor.state_dict(), tmp_path / "x.safetensors")
    backbone = create_backbone("resnet18", bands=3).eval()
    assert load_pretrained(backbone, str(tmp_path / "x.safetensors")) == []
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images)[-1], donor.forward_features(images))


def test_random_stem_is_left_and_said(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "x.pth")
    backbone = create_backbone("resnet18", bands=3)
    before = backbone.body.conv1.weight.clone()
    assert load_pretrained(backbone, tmp_path / "x.pth", stem_init="random") == [
        "body.conv1.weight: left random"
    ]
    assert torch.equal(backbone.body.conv1.weight, before)


def test_what_does_not_fit_is_said(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    del state["layer4.1.conv2.weight"]
    state["layer1.0.bn1.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "x.pth")
    left_out = load_pretrained(create_backbone("resnet18", bands=1), tmp_path / "x.pth")
    assert left_out == [
        "body.layer1.0.bn1.bias: (3,) given, (64,) needed",
        "body.layer4.1.conv2.weight (512, 512, 3, 3): not among the pretrained weights",
    ]
    with pytest.raises(UserError, match=r"holds weights of another network than vgg11: 0 of \d+ tensors fit"):
        load_pretrained(create_backbone("vgg11", bands=3), tmp_path / "x.pth")


def test_files_that_are_none(tmp_path):
    backbone = create_backbone("mit_b0", bands=3)
    with pytest.raises(UserError, match="no such file; allowed: imagenet, none"):
        load_pretrained(backbone, tmp_path / "x.pth")
    torch.save(object, tmp_path / "object.pth")  # more than tensors: not unpickled
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "text.safetensors").write_text("no weights")
    for name in ("object.pth", "text.pth", "text.safetensors"):
        with pytest.raises(UserError, match=f"{name} (holds a type|is damaged)") as raised:
            load_pretrained(backbone, tmp_path / name)
        assert "\n" not in str(raised.value)
    torch.save({"epoch": 1}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="there are no weights in it"):
        load_pretrained(backbone, tmp_path / "empty.pth")


@pytest.mark.parametrize("name", ["resnet18", "hrnet_w18s", "inception_v1", "shufflenet_v2"])
def test_without_internet_one_line_says_what_to_do(name, monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no internet in tests")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained.huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(UserError, match=r"cannot be fetched .*give a file of its weights") as raised:
        load_pretrained(create_backbone(name, bands=3), "imagenet")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["mit_b0", "mscan_t", "cbam_resnet18", "shufflenet_v1"])
def test_nobody_offers_weights(name):
    with torch.device("meta"):
        backbone = create_backbone(name, bands=3)
    with pytest.raises(
        UserError, match=f"neither timm nor torchvision has ImageNet weights of {name}; give a file"
    ):
        load_pretrained(backbone, "ImageNet")


@pytest.mark.parametrize(("family", "name"), [("unet", "none"), ("unet", "S5-D16"), ("enet", "enet")])
def test_own_encoders_have_no_weights(family, name):
    with torch.device("meta"):
        backbone = create_model(family, bands=3, num_classes=2, backbone=name).backbone
    with pytest.raises(
        UserError, match=f"{family}'s own encoder has no pretrained weights; leave the flag out"
    ):
        load_pretrained(backbone, "imagenet")


def test_other_normalisations_are_rescaled(monkeypatch):
    donor = timm.create_model("inception_v3")
    assert tuple(donor.pretrained_cfg["std"]) == (0.5, 0.5, 0.5)
    create = timm.create_model
    monkeypatch.setattr(pretrained, "_check_reach", lambda *_: None)
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False, **k: donor if pretrained else create(name, **k)
    )
    backbone = create_backbone("inception_v3", bands=3)
    assert load_pretrained(backbone, "imagenet") == []
    ratio = torch.tensor([0.458, 0.448, 0.45])[:, None, None]
    torch.testing.assert_close(find_stem(backbone)[1].weight, ratio * find_stem(donor)[1].weight)


def test_position_embedding_of_another_grid(tmp_path):
    donor = timm.create_model("vit_tiny_patch16_384", num_classes=0)
    torch.save(donor.state_dict(), tmp_path / "x.pth")
    backbone = create_backbone("vit_tiny", bands=3)
    left_out = load_pretrained(backbone, tmp_path / "x.pth")
    assert all(line.startswith("levels.") for line in left_out) and len(left_out) == 8
    own, given = backbone.body.model.pos_embed, donor.pos_embed
    assert own.shape == (1, 197, 192) and torch.equal(own[:, :1], given[:, :1])
    torch.testing.assert_close(own[:, 1:].mean(1), given[:, 1:].mean(1), atol=2e-2, rtol=0)


def test_beits_names_and_positions_of_another_grid(tmp_path):
    donor = timm.create_model("beit_base_patch16_224", num_classes=0, depth=4).eval()
    for block in donor.blocks:
        torch.nn.init.normal_(block.attn.relative_position_bias_table)
    torch.save(donor.state_dict(), tmp_path / "x.pth")
    options = {"blocks": (0, 1, 2, 3), "depth": 4, "padding": "none", "neck": "none"}
    same = PlainTransformer("beit_b", bands=3, image_size=(224, 224), norm_eps=1e-6, **options).eval()
    assert load_pretrained(same, tmp_path / "x.pth") == []
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        expected = torch.cat([donor.cls_token, donor.patch_embed(images)], dim=1)
        for block in donor.blocks:
            expected = block(expected)
        torch.testing.assert_close(same(images)[-1].flatten(2).mT, expected[:, 1:], rtol=1e-4, atol=1e-4)
    larger = PlainTransformer("beit_b", bands=3, image_size=(320, 320), **options)
    assert load_pretrained(larger, tmp_path / "x.pth") == []
    own = larger.body.blocks[0].attn.relative_position_bias_table
    given = donor.blocks[0].attn.relative_position_bias_table
    assert torch.equal(own[-3:], given[-3:])
    # The authors' geometric sequence keeps the middle of the table as it is.
    old, new = given[:-3].reshape(27, 27, -1), own[:-3].reshape(39, 39, -1)
    torch.testing.assert_close(new[18:21, 18:21], old[12:15, 12:15], rtol=0, atol=0.3)
