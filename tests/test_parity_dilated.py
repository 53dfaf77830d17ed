"""FCN, PSPNet, DeepLab and U-Net compute what MMSegmentation computes, in double precision."""

import pytest
import torch

from nets.backbones.configured import create_configured_backbone
from nets.errors import UserError
from nets.importers.foreign import Foreign, read_foreign
from tests.helpers import SHARED, shared_parity
from tools import make_parity_report
from tools.make_parity_report import main
from tools.parity_runner import run

# The others are in docs/parity.md; these are quick and cover every head and backbone.
SMALLEST = [
    "fcn_r18",
    "pspnet_r18",
    "pspnet_r50-d32",
    "deeplabv3_r18",
    "deeplabv3plus_r18",
    "mobilenetv2_fcn",
    "unet_pspnet",
]


@pytest.mark.parametrize("name", SMALLEST)
def test_reference(name):
    reference = shared_parity(name)
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


@pytest.mark.parametrize(
    ("name", "options", "sides"),
    [
        ("resnet18", {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2)}, [16, 8, 4, 4]),
        ("resnet18", {"stem": "deep", "avg_down": True, "strides": (1, 2, 1, 1)}, [16, 8, 8, 8]),
        ("resnet50", {"out_stages": (0, 2), "strides": (1, 1, 2), "dilations": (1, 2, 4)}, [16, 8]),
        ("resnest50d", {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}, [16, 8, 8, 8]),
        ("mobilenetv2_035", {"strides": (1, 2, 2, 1, 1, 1, 1), "out_stages": (1, 2, 6)}, [16, 8, 8]),
    ],
)
def test_stated_strides(name, options, sides):
    backbone = create_configured_backbone(name, bands=2, options=options).eval()
    with torch.inference_mode():
        maps = backbone(torch.randn(1, 2, 64, 64))
    assert [each.shape[-1] for each in maps] == sides
    assert [64 // stride for stride in backbone.strides] == sides
    assert [each.shape[1] for each in maps] == backbone.channels


def test_blocks_add_their_input_where_it_fits():
    # At this width the second stage keeps 8 channels: without its stride the first block becomes residual.
    for stride in (1, 2):
        options = {"strides": (1, stride, 2, 2, 1, 2, 1)}
        backbone = create_configured_backbone("mobilenetv2_035", bands=3, options=options)
        assert backbone.body.blocks[1][0].has_skip == (stride == 1)


def test_options_that_do_not_fit():
    with pytest.raises(UserError, match=r"backbone_options .* do not fit .*nonsense"):
        create_configured_backbone("resnet18", bands=3, options={"nonsense": 1})
    with pytest.raises(UserError, match="takes no backbone_options"):
        create_configured_backbone("vgg11", bands=3, options={"strides": (1,)})
    with pytest.raises(UserError, match="must be 1"):
        create_configured_backbone("resnet18", bands=3, options={"strides": (2, 2, 2, 2)})
    with pytest.raises(UserError, match="3 numbers are needed"):
        create_configured_backbone("resnet50", bands=3, options={"multi_grid": (1, 2)})


def test_report(tmp_path, monkeypatch):
    shared_parity("pspnet_r18")  # skips where the references are not here

    def without_erfnet(checkpoint: dict) -> Foreign:
        if "ERFNet" in checkpoint["meta"]["cfg"]:
            raise UserError("no network here has it; say something else")
        return read_foreign(checkpoint)

    monkeypatch.setattr(make_parity_report, "read_foreign", without_erfnet)
    table = tmp_path / "parity.md"
    refs = str(SHARED / "parity" / "refs")
    assert main(["--REFS", refs, "--ONLY", "^(pspnet_r18|erfnet)$", "--OUTPUT", str(table)]) == 0
    text = table.read_text()
    assert text.startswith("# Parity with MMSegmentation\n") and "**1 of 1 give the same logits.**" in text
    assert (
        "| pspnet_r18 | `pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py` | pspnet, resnet18 |" in text
    )
    assert text.count("| same |") == 1 and "- **pspnet_r18**: channels=128, " in text
    assert "## Not compared\n\n- erfnet: no network here has it\n" in text
    assert str(SHARED) not in text and str(tmp_path) not in text and f"torch {torch.__version__}"[:9] in text
    with pytest.raises(UserError, match="there is no such folder"):
        main(["--REFS", str(tmp_path / "absent")])
    with pytest.raises(UserError, match=r"no parity_weights\.py"):
        main(["--REFS", str(tmp_path)])
