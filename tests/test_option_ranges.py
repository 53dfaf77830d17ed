"""Numbers that a network cannot have are one line that names the option, before a layer fails on them."""

import inspect

import pytest

from nets import create_model
from nets.errors import UserError
from nets.registry import convert_option, get_builder


@pytest.mark.parametrize(
    ("family", "option", "value", "message"),
    [
        ("pspnet", "pool_scales", "0,1", "pspnet: pool_scales=0,1 is given; it is 1 or more"),
        ("pspnet", "dropout", "nan", "it is finite"),
        ("pspnet", "dropout", "1", "at least 0 and below 1"),
        ("pspnet", "norm_eps", "-1", "0 or more"),
        ("setr", "drop_path", "-0.1", "at least 0 and below 1"),
        ("ccnet", "dilation", "0", "1 or more"),
        ("mask2former", "queries", "0", "1 or more"),
        ("knet", "heads", "-1", "0 or more"),
        ("pspnet", "in_index", "-3", None),
        ("dpt", "layers", "-4,-3,-2,-1", None),
        ("deeplab", "low_channels", "0", None),
    ],
)
def test_numbers(family, option, value, message):
    parameter = inspect.signature(get_builder(family)).parameters[option]
    if message is None:
        convert_option(family, parameter, value)
        return
    with pytest.raises(UserError, match=message):
        convert_option(family, parameter, value)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("cgnet", {"widths": "8"}, "cgnet cannot be built with widths=8: not enough values"),
        ("cgnet", {"blocks": "0,3"}, "each stage needs a block"),
        ("cgnet", {"reductions": "0,3"}, "reductions=0,3"),
        ("attention_unet", {"width": "0"}, "width=0"),
        ("sem_fpn", {"backbone": "resnet18", "feature_strides": "4"}, "1 strides for 4 maps"),
        ("pointrend", {"backbone": "resnet18", "feature_strides": "4,8"}, "2 strides for 4 maps"),
        ("maskformer", {"backbone": "resnet18", "decoder_layers": "0"}, "it needs one"),
    ],
)
def test_options_that_do_not_go_together(family, options, message):
    with pytest.raises(UserError, match=message) as error:
        create_model(family, bands=3, num_classes=2, **options)
    assert error.value.__cause__ is not None and "\n" not in str(error.value)


def test_a_defect_of_a_builder_keeps_its_traceback(monkeypatch):
    def broken(*, bands, num_classes, width: int = 3):
        raise RuntimeError("ours")

    monkeypatch.setattr("nets.registry.get_builder", lambda name: broken)
    with pytest.raises(RuntimeError, match="ours"):
        create_model("unet", bands=3, num_classes=2)
