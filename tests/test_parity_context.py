"""The context networks compute what MMSegmentation computes, in double precision; their blocks by hand."""

import pytest
import torch
import torch.nn.functional as F

from nets import create_model
from nets.decoders.encoding import Encoding
from nets.errors import UserError
from nets.importers.mmseg_context import translate
from nets.importers.mmseg_fastfcn import translate as translate_fastfcn
from nets.layers.non_local import NonLocal
from nets.models.ccnet import CrissCross
from nets.models.dmnet import DynamicFilter
from nets.models.emanet import EMAttention
from nets.models.isanet import InterlacedAttention
from nets.models.psanet import unfold_attention
from tests.helpers import randomize, shared_parity
from tools.parity_runner import run

REFERENCES = [
    "ann_r50",
    "apcnet_r50",
    "ccnet_r50",
    "danet_r50",
    "dmnet_r50",
    "dnl_r50",
    "emanet_r50",
    "encnet_r50",
    "fastfcn_jpu_enc",
    "fastfcn_jpu_psp",
    "gcnet_r50",
    "isanet_r50",
    "nonlocal_r50",
    "psanet_r50",
]


@pytest.mark.parametrize("name", REFERENCES)
def test_reference(name):
    reference = shared_parity(name).first
    assert reference.difference(run(reference.checkpoint, reference.images)) < 1e-7


def test_criss_cross_by_hand():
    block = randomize(CrissCross(16, recurrence=1)).double()
    block.weight.data.fill_(0.5)
    x = torch.randn(1, 16, 3, 4, dtype=torch.float64)
    query, key, value = block.query(x)[0], block.key(x)[0], block.value(x)[0]
    expected = x[0].clone()
    for i in range(3):
        for j in range(4):
            cross = [(k, j) for k in range(3) if k != i] + [(i, k) for k in range(4)]
            weights = torch.stack([query[:, i, j] @ key[:, a, b] for a, b in cross]).softmax(0)
            expected[:, i, j] += 0.5 * sum(
                w * value[:, a, b] for w, (a, b) in zip(weights, cross, strict=True)
            )
    torch.testing.assert_close(block(x)[0], expected)
    block.recurrence = 2
    torch.testing.assert_close(block(x), expected[None] + 0.5 * block.gather(expected[None]))


@pytest.mark.parametrize("mask", [(5, 3), (4, 2), (9, 9)])
def test_attention_by_offset_becomes_attention_by_position(mask):
    height, width, half = 3, 4, [(side - 1) // 2 for side in mask]
    relative = torch.randn(2, mask[0] * mask[1], height, width)
    unfolded = unfold_attention(relative, mask)
    for y, x, p, q in torch.cartesian_prod(
        *(torch.arange(n) for n in (height, width, height, width))
    ).tolist():
        i, j = p - y + half[0], q - x + half[1]
        inside = 0 <= i < mask[0] and 0 <= j < mask[1]
        expected = relative[:, i * mask[1] + j, y, x] if inside else torch.zeros(2)
        assert torch.equal(unfolded[:, p * width + q, y, x], expected)


def test_encoding_by_its_definition():
    encoding = Encoding(6, 3).double()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    pixels = x.flatten(2).transpose(1, 2)[:, :, None] - encoding.codewords  # (B, h w, N, C)
    weights = (encoding.scale * pixels.square().sum(3)).softmax(2)
    torch.testing.assert_close(encoding(x), (weights[..., None] * pixels).sum(1))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_image_has_its_own_filters(size):
    block = randomize(DynamicFilter(3, 2, size, fusion=False)).eval()
    x = torch.randn(2, 3, 6, 5)
    for i in range(2):
        kernels = block.kernel(F.adaptive_avg_pool2d(x[i : i + 1], size))[0]  # (D, s, s)
        padded = F.pad(block.reduce(x[i : i + 1])[0], (size // 2, (size - 1) // 2) * 2)
        windows = padded.unfold(1, size, 1).unfold(2, size, 1)  # (D, h, w, s, s)
        filtered = (windows * kernels[:, None, None]).sum((3, 4))
        torch.testing.assert_close(block(x)[i : i + 1], block.norm(filtered[None]).relu())


def test_interlaced_attention_keeps_pixels_in_place():
    # Of groups of one pixel the far attention sees the whole map, the near one nothing else.
    block = randomize(InterlacedAttention(4, 4, (1, 1))).eval().double()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    pixels = block.far(x).permute(0, 2, 3, 1).reshape(-1, 4, 1, 1)
    expected = block.near(pixels).reshape(2, 3, 5, 4).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), expected)
    # One group that covers a padded map: the far attention sees single pixels.
    block.group_size = (4, 7)
    padded = F.pad(x, (1, 1, 0, 1))
    pixels = (
        block.far(padded.permute(0, 2, 3, 1).reshape(-1, 4, 1, 1)).reshape(2, 4, 7, 4).permute(0, 3, 1, 2)
    )
    torch.testing.assert_close(block(x), block.near(pixels)[:, :, :3, 1:6])


@pytest.mark.parametrize("mode", ["gaussian", "dot_product", "concatenation"])
def test_modes_of_the_non_local_block(mode):
    block = randomize(NonLocal(6, reduction=2, scaled=True, mode=mode)).double()
    x = torch.randn(1, 6, 2, 3, dtype=torch.float64)
    value = block.value(x)[0].flatten(1)
    if mode == "gaussian":
        weights = (x[0].flatten(1).T @ x[0].flatten(1)).softmax(1)
    else:
        query, key = block.query(x)[0].flatten(1), block.key(x)[0].flatten(1)
        weights = query.T @ key / 6
        if mode == "concatenation":
            pairs = torch.cat([query[:, :, None].expand(-1, 6, 6), key[:, None].expand(-1, 6, 6)])
            weights = block.compare(pairs)[0].relu() / 6
    torch.testing.assert_close(block.gather(x)[0].flatten(1), value @ weights.T)


def test_bases_follow_the_training_images_only():
    block = EMAttention(5, num_bases=3, steps=2, momentum=0.25)
    x, before = torch.randn(4, 5, 3, 3), block.bases.clone()
    block.eval()(x)
    assert torch.equal(block.bases, before)
    block.train()(x)
    moved = (block.bases - 0.75 * before) / 0.25  # the batch's own, columns of length 1
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(1, 3))
    assert not block(x).requires_grad


def test_outputs_of_training():
    images = torch.randn(2, 3, 64, 64)
    small = {"bands": 3, "num_classes": 4, "backbone": "resnet18", "channels": 16}
    danet = create_model("danet", **small, aux=True).train()
    assert [tuple(x.shape) for x in danet(images)["aux"]] == [(2, 4, 64, 64)] * 3
    for family in ("encnet", "fastfcn"):
        assert create_model(family, **small).train()(images)["class_presence"].shape == (2, 4)
        assert set(create_model(family, **small, presence=False).train()(images)) == {"logits"}
        assert set(create_model(family, **small).eval()(images)) == {"logits"}
    assert set(create_model("fastfcn", **small, head="psp").train()(images)) == {"logits"}


NORM = {"type": "BN"}
RESNET = {"type": "ResNetV1c", "depth": 18, "norm_cfg": NORM}


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"type": "PSAHead", "mask_size": (3, 3), "compact": True}, "compact=True; False is needed"),
        ({"type": "ANNHead", "in_index": (2, 3), "query_scales": (1, 2)}, r"query_scales=\(1, 2\)"),
        ({"type": "GCHead", "input_transform": "multiple_select"}, "'resize_concat' is needed"),
        ({"type": "DAHead", "unheard_of": 1}, "unheard_of=1, which no network here has"),
    ],
)
def test_heads_that_cannot_be_imported(head, message):
    model = {"backbone": RESNET, "decode_head": {"channels": 8, "norm_cfg": NORM} | head}
    with pytest.raises(UserError, match=message):
        translate(model, [])


def test_joined_maps_that_cannot_be_imported():
    backbone = RESNET | {"out_indices": (1, 2, 3)}
    head = {"type": "PSPHead", "channels": 8, "norm_cfg": NORM, "in_index": 2}
    aux = {"type": "FCNHead", "channels": 8, "norm_cfg": NORM, "in_index": 2}
    model = {"backbone": backbone, "neck": {"type": "JPU"}, "decode_head": head}
    assert translate_fastfcn(model, [])[0] == "fastfcn"
    with pytest.raises(UserError, match="an auxiliary head is on the JPU's joined map"):
        translate_fastfcn(model | {"auxiliary_head": aux}, [])
    with pytest.raises(UserError, match="PSPHead uses map 1 of the JPU"):
        translate_fastfcn(model | {"decode_head": head | {"in_index": 1}}, [])
    with pytest.raises(UserError, match="end_level=2; all 3 maps are needed"):
        translate_fastfcn(model | {"neck": {"type": "JPU", "end_level": 2}}, [])
