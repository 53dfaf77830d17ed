"""EoMT computes what Hugging Face computes, and loses its masks while it learns."""

import json
import re

import pytest
import torch

import train
from nets import create_model
from nets.errors import UserError
from nets.importers.foreign import load_foreign
from nets.importers.huggingface import load_huggingface, read_huggingface
from nets.models.eomt import EoMT
from tests.helpers import randomize, unnormalised
from tests.tiny_dataset import write_dataset
from utils.program import run_program

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3}
SMALL = {
    "backbone": "dinov2_small",
    "queries": 5,
    "blocks": 2,
    "image_size": (64, 64),
    "backbone_options": TINY,
}
THEIRS = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "num_blocks": 2, "image_size": 64,
    "num_queries": 5, "num_labels": 4, "num_channels": 2, "attn_implementation": "eager",
}  # fmt: skip
KINDS = {
    "dinov2": ("EomtConfig", "EomtForUniversalSegmentation", {}),
    "swiglu": ("EomtConfig", "EomtForUniversalSegmentation", {"use_swiglu_ffn": True, "patch_size": 8}),
    "dinov3": (
        "EomtDinov3Config",
        "EomtDinov3ForUniversalSegmentation",
        {"intermediate_size": 90, "layer_norm_eps": 1e-5},
    ),
}


def build(**options):
    torch.manual_seed(0)
    network = create_model("eomt", bands=2, num_classes=4, **SMALL | options)
    chances = network.mask_chances.clone()
    randomize(network)
    network.mask_chances.copy_(chances)
    return unnormalised(network).double()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [0, 1, 2])
def test_hugging_face(kind, masked, tmp_path):
    library = pytest.importorskip("transformers")
    config_class, network_class, options = KINDS[kind]
    if not hasattr(library, network_class):
        pytest.skip(f"this transformers has no {network_class}")
    config = getattr(library, config_class)(**THEIRS | options)
    theirs = randomize(getattr(library, network_class)(config)).eval()
    theirs.attn_mask_probs.copy_(torch.tensor([0.0] * (2 - masked) + [1.0] * masked))
    theirs.save_pretrained(tmp_path)
    safetensors = pytest.importorskip("safetensors.torch")
    states = {
        "in memory": (config.to_dict(), theirs.state_dict()),
        "on the Hub": (
            json.loads((tmp_path / "config.json").read_text()),
            safetensors.load_file(tmp_path / "model.safetensors"),
        ),
    }
    images = torch.randn(2, 2, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        expected = theirs.double()(images)
    for where, (described, state) in states.items():
        ours = unnormalised(load_huggingface(described, state)).double()
        with torch.inference_mode():
            outputs = ours(images)
        assert len(outputs["mask_logits"]) == 1 + masked
        for own, other in (
            ("mask_logits", expected.masks_queries_logits),
            ("class_logits", expected.class_queries_logits),
        ):
            # Their softmax is in float32 in any precision, and so are the frequencies of the positions.
            difference = (outputs[own][-1] - other).abs().max() / other.std()
            assert difference < 1e-5, (where, own)


def test_what_is_not_here_is_refused():
    library = pytest.importorskip("transformers")
    config = library.EomtConfig(**THEIRS)
    state = library.EomtForUniversalSegmentation(config).state_dict()
    state["attn_mask_probs"] = torch.tensor([0.0, 0.5])
    with pytest.raises(UserError, match=r"attn_mask_probs=\[0.0, 0.5\], as in the midst of its training"):
        read_huggingface(config.to_dict(), state)
    with pytest.raises(UserError, match="hidden_act='relu'; 'gelu' is needed"):
        read_huggingface(config.to_dict() | {"hidden_act": "relu"}, state)
    changed = {"model_type": "eomt_dinov3", "use_gated_mlp": True}
    with pytest.raises(UserError, match="use_gated_mlp=True; False is needed"):
        read_huggingface(config.to_dict() | changed, state)


def test_the_authors_weights():
    """Under the names that their modules give, with Lightning's and torch.compile's parts in them."""
    torch.manual_seed(0)
    options = {"backbone": "dinov2_small", "queries": 6, "masked_blocks": 2}
    ours = randomize(create_model("eomt", bands=3, num_classes=4, **options)).eval()
    ours.mask_chances.copy_(torch.tensor([0.0, 1.0, 1.0]))
    changes = {
        "backbone.body.": "encoder.backbone.",
        "mask_chances": "attn_mask_probs",
        "query_decoder.query_features": "q.weight",
        "query_decoder.classifier.": "class_head.",
        "query_decoder.mask_embedding.": "mask_head.",
    }
    state = {"network.encoder.pixel_mean": torch.full((1, 3, 1, 1), 0.5)}
    state["network.encoder.pixel_std"] = torch.full((1, 3, 1, 1), 0.25)
    for key, value in ours.state_dict().items():
        for own, theirs in changes.items():
            key = key.replace(own, theirs)
        for number, name in ((0, "conv1"), (2, "conv2"), (3, "norm")):
            key = re.sub(rf"query_decoder\.enlarge\.(\d)\.{number}\.", rf"upscale.\1.{name}.", key)
        if key not in ("mean", "std"):
            state[f"network._orig_mod.{key}"] = value
    network = load_foreign({"state_dict": state})
    assert network.about["source"] == "the authors of eomt" and network.masked_blocks == 2
    assert network.mean.tolist() == [127.5] * 3 and network.std.tolist() == [63.75] * 3
    images = torch.randn(1, 3, 96, 64)
    with torch.inference_mode():
        assert torch.equal(unnormalised(network)(images)["logits"], unnormalised(ours)(images)["logits"])
    del state["network._orig_mod.encoder.backbone.pos_embed"]
    with pytest.raises(UserError, match="is not built on DINOv2; of those on DINOv3 they publish"):
        load_foreign({"state_dict": state})


def test_the_masks_are_taken_away_block_by_block():
    network = build(blocks=2)
    expected = {
        0.0: [1, 1],
        0.25: [1, 1],
        0.375: [0.5**0.9, 1],
        0.5: [0, 1],
        0.625: [0, 0.5**0.9],
        0.75: [0, 0],
        1.0: [0, 0],
    }
    for share, chances in expected.items():
        network.at_progress(share)
        torch.testing.assert_close(network.mask_chances, torch.tensor(chances, dtype=torch.float64))


def test_a_run_takes_the_masks_away(tmp_path, monkeypatch):
    write_dataset(tmp_path / "data", size=32, tiles=3)
    monkeypatch.chdir(tmp_path)
    shares = []
    monkeypatch.setattr(EoMT, "at_progress", lambda self, share: shares.append(share))
    words = ["--MODEL_TYPE", "eomt", "--BACKBONE_TYPE", "dinov2_small", "--MODEL_OPTIONS", "queries=4"]
    words += ["--DATASET_PATH", "data", "--NUM_WORKERS", "0", "--USE_CPU", "--MAX_ITERS", "2"]
    words += ["--CROP_SIZE", "32", "--BATCH_SIZE", "2"]
    assert run_program(train.main, [*words, "--RUN_NAME", "one"]) == 0
    assert list(dict.fromkeys(shares)) == [0.0, 0.5, 1.0]


def test_who_looks_at_whom():
    network = build()
    masks = torch.full((1, 5, 8, 8), -1.0)
    masks[0, 2, :4, :4] = 1.0
    for training, chance, inside in ((True, 1.0, True), (True, 0.0, False), (False, 0.0, True)):
        network.train(training)
        allowed = network.look_inside(masks, (4, 4), 5 + 5 + 16, torch.tensor(chance))
        assert allowed.shape == (1, 1, 26, 26)
        patches = allowed[0, 0, :5, 10:].view(5, 4, 4)
        if inside:
            assert patches[2, :2, :2].all() and patches[2].sum() == 4 and patches[[0, 1, 3, 4]].sum() == 0
        else:
            assert patches.all()
        assert allowed[0, 0, 5:].all() and allowed[0, 0, :, :10].all()
    torch.manual_seed(0)
    network.train()
    held = network.look_inside(masks.expand(400, -1, -1, -1), (4, 4), 26, torch.tensor(0.3))[:, 0, 0, 10:]
    assert (~held.any(1)).double().mean() == pytest.approx(0.3, abs=0.1) and held.any(1).eq(held.all(1)).all()


def test_masks_hold_in_training_and_are_gone_afterwards():
    network, images = build(), torch.randn(1, 2, 64, 64, dtype=torch.float64)

    def last(mode):
        torch.manual_seed(1)
        outputs = network.train(mode)(images)
        assert len(outputs["mask_logits"]) == len(outputs["class_logits"]) == (3 if mode else 1)
        return outputs["mask_logits"][-1]

    assert not torch.allclose(last(True), last(False))
    network.at_progress(1.0)
    torch.testing.assert_close(last(True), last(False))


@pytest.mark.parametrize("backbone", ["dinov2_small", "dinov3_small"])
def test_padding_is_cut_off(backbone):
    network = build(backbone=backbone).eval()
    images = torch.randn(1, 2, 64, 72, dtype=torch.float64)
    padded = torch.nn.functional.pad(images, (0, 8))
    with torch.inference_mode():
        own, whole = (network(each)["mask_logits"][-1] for each in (images, padded))
    assert own.shape[-2:] == (16, 18) and torch.equal(own, whole[..., :18])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet50"}, "resnet50 is given; allowed: dinov2_small, dinov2_base"),
        ({"blocks": 9}, "blocks=9, masked_blocks=0 is given; dinov2_small has 3 blocks"),
        ({"masked_blocks": 3}, "masked_blocks=3 is given"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


def test_the_usual_numbers_of_blocks():
    with torch.device("meta"):
        for size, blocks in {"small": 3, "base": 3, "large": 4, "giant": 5}.items():
            network = create_model("eomt", bands=3, num_classes=2, backbone=f"dinov2_{size}")
            assert len(network.mask_chances) == blocks and len(network.query_decoder.enlarge) == 2
        names = {"vit_base_patch16_dinov3": 3, "dinov3_large": 4}
        for name, blocks in names.items():
            network = create_model("eomt", bands=3, num_classes=2, backbone=name)
            assert len(network.mask_chances) == blocks
