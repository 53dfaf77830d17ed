"""Names, options and blueprints."""

import inspect

import pytest
import torch

from nets import create_model, list_models
from nets.errors import UserError
from nets.registry import (
    describe_option,
    find_model,
    get_builder,
    list_options,
    parse_model_options,
    register_model,
)

SMALL = {"bands": 3, "num_classes": 2}


@pytest.mark.parametrize("name", ["U-Net", "unet", "UNET", "u_net", "U Net"])
def test_spellings(name):
    assert find_model(name) == ("unet", {})


def test_aliases():
    assert find_model("DeepLabV3+") == ("deeplab", {"version": "v3plus"})
    assert find_model("deeplab-v3") == ("deeplab", {"version": "v3"})
    assert {"deeplab", "segformer", "unet"} <= set(list_models())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unett", {}, "no network is named 'unett'; nearest: unet"),
        ("unet", {"backbone": "resnet5"}, "no backbone is named 'resnet5'; nearest: resnet"),
        ("segformer", {"backbone": "b9"}, "segformer: backbone=b9 is given; allowed: b0, b1, b2, b3, b4, b5"),
        (
            "segformer",
            {"decoder_chanels": 3},
            "segformer has no option 'decoder_chanels'; nearest: decoder_channels",
        ),
        ("deeplab", {"version": "v4"}, "deeplab: version=v4 is given; allowed: v3plus, v3"),
        ("deeplab", {"output_stride": "12"}, "output_stride=12 is given; allowed: none or 8, 16, 32"),
        ("deeplabv3", {"version": "v3plus"}, "deeplabv3 means version=v3"),
        (
            "segformer",
            {"decoder_channels": "wide"},
            "decoder_channels=wide is given; allowed: none or a whole number",
        ),
        ("fcn", {"aux_heads": "1"}, "fcn: aux_heads=1 is given; it is set by importers only, leave it out"),
        ("fcn", {"aux_heads": ""}, "it is set by importers only"),
        ("unet", {"backbone_options": "norm=1"}, "unet: backbone_options=norm=1 is given; it is set by imp"),
        ("pspnet", {"pool_scales": "1,x"}, "pool_scales=1,x is given; allowed: whole numbers as in 1,2,3"),
        (
            "isanet",
            {"group_size": "8"},
            "isanet: group_size=8 is given; two sides are needed, as in group_size=8,8",
        ),
        ("psanet", {"mask_size": (59,)}, "psanet: mask_size=59 is given; two sides are needed"),
        ("eomt", {"image_size": "126"}, "eomt: image_size=126 is given; two sides are needed"),
        ("deeplab", {"norm_between": "maybe"}, "norm_between=maybe is given; allowed: true or false"),
        ("deeplab", {"backbone": "swin_tiny_patch4_window7_224", "output_stride": 8}, "cannot be dilated"),
    ],
)
def test_mistakes_name_what_is_valid(name, options, message):
    with pytest.raises(UserError) as raised:
        create_model(name, **SMALL, **options)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_text_becomes_the_signatures_type():
    model = create_model("unet", **SMALL, backbone="resnet18", decoder_channels="32,16")
    assert model.blueprint["options"]["decoder_channels"] == (32, 16)
    model = create_model("segformer", **SMALL, backbone="B0", decoder_channels="32", drop_path="0.2")
    assert model.blueprint["options"]["decoder_channels"] == 32
    assert model.blueprint["options"]["backbone"] == "b0" and model.blueprint["options"]["drop_path"] == 0.2


def test_a_name_of_the_family_or_of_any_backbone():
    with torch.device("meta"):
        for typed, kept in (("S5-D16", "s5_d16"), ("None", "none"), ("test_resnet", "test_resnet")):
            assert create_model("unet", **SMALL, backbone=typed).blueprint["options"]["backbone"] == kept


def test_what_options_take():
    def takes(family: str, option: str) -> tuple:
        return tuple(describe_option(inspect.signature(get_builder(family)).parameters[option]))

    assert takes("hrnet", "version") == (("v2", "v1"), "v2, v1", False, True)
    assert takes("deeplab", "output_stride") == (("8", "16", "32"), "none or 8, 16, 32", False, True)
    assert takes("unet", "backbone") == (("none", "s5_d16"), "none, s5_d16 or text", True, True)
    assert takes("fcn", "in_index") == ((), "whole numbers as in 1,2,3", False, True)
    for option in ("aux_heads", "backbone_options"):
        assert takes("fcn", option) == ((), "set by importers only", False, False)


@pytest.mark.parametrize("family", list_models())
def test_people_see_only_what_they_can_set(family):
    options = list_options(get_builder(family))
    assert options and not {"aux_heads", "backbone_options", "decoder_options", "coarse_head"} & set(options)
    with pytest.raises(UserError) as raised:
        create_model(family, **SMALL, nonsense=1)
    assert str(raised.value).endswith(f"it has: {', '.join(options)}")


def test_model_options_may_hold_commas():
    assert parse_model_options("a=1,b=2,3,4,c=x") == {"a": "1", "b": "2,3,4", "c": "x"}
    assert parse_model_options(" ") == {}
    for text in ("a", "a=1,a=2", "=1"):
        with pytest.raises(UserError, match="is not key=value, or given twice"):
            parse_model_options(text)


def test_builders_are_found_by_their_file():
    def elsewhere(*, bands: int, num_classes: int): ...

    with pytest.raises(TypeError, match=r"must stand in nets/models/elsewhere\.py"):
        register_model(elsewhere)


@pytest.mark.parametrize(("version", "backbone"), [("dilated", "resnet50"), ("32s", "vgg16")])
def test_what_a_builder_decides_stands_in_the_blueprint(version, backbone):
    with torch.device("meta"):
        network = create_model("fcn", bands=3, num_classes=2, version=version)
    assert network.blueprint["options"]["backbone"] == backbone
