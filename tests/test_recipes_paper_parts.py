"""`--RECIPE paper`: rates of single parameters, parts of networks and losses, and which flag wins."""

import pytest
import torch
from timm.layers import DropPath

from tests.paper_recipes import TOTAL, Run
from utils.training.criterion import build_criterion
from utils.training.focal_mask_loss import ALPHA, GAMMA, FocalMaskCriterion
from utils.training.mask_loss import NO_OBJECT, POINTS, MaskCriterion
from utils.training.matcher import WEIGHTS

# Some parameters by name, at batch 16: (learning rate, weight decay).
PARAMETERS = {
    "segformer": {
        "backbone.stages.0.embed.weight": (6e-5, 0.01),
        "backbone.stages.0.norm.weight": (6e-5, 0.0),
        "decoder.fuse.conv.weight": (6e-4, 0.01),
        "decoder.fuse.norm.weight": (6e-4, 0.0),
        "classifier.bias": (6e-4, 0.01),
    },
    "segnext": {
        "backbone.embeds.0.0.weight": (6e-5, 0.01),
        "backbone.norms.3.weight": (6e-5, 0.0),
        "decoder.squeeze.conv.weight": (6e-4, 0.01),
    },
    "setr": {
        "backbone.body.pos_embed": (1e-3, 0.0),
        "head.classifier.weight": (1e-2, 0.0),
        "aux_heads.2.classifier.weight": (1e-2, 0.0),
    },
    "upernet": {"backbone.body.bn1.weight": (1e-2, 5e-4), "decoder.fuse.conv.weight": (1e-2, 5e-4)},
    "upernet --BACKBONE_TYPE Swin-T": {
        "backbone.body.patch_embed.proj.weight": (6e-5, 0.01),
        "backbone.body.layers_0.blocks.0.norm1.weight": (6e-5, 0.0),
        "backbone.body.layers_0.blocks.0.attn.relative_position_bias_table": (6e-5, 0.0),
        "decoder.fuse.norm.weight": (6e-5, 0.0),
    },
    "upernet --BACKBONE_TYPE vit": {
        "backbone.body.model.pos_embed": (6e-5, 0.0),
        "backbone.body.model.cls_token": (6e-5, 0.0),
        "backbone.body.model.blocks.11.mlp.fc2.weight": (6e-5, 0.01),
    },
    "upernet --BACKBONE_TYPE mae_b": {
        "backbone.body.pos_embed": (1e-4 * 0.65**13, 0.05),
        "backbone.body.blocks.11.attn.relative_position_bias_table": (1e-4 * 0.65, 0.05),
        "backbone.body.blocks.0.ls1.gamma": (1e-4 * 0.65**12, 0.0),
        "backbone.neck.0.0.weight": (1e-4, 0.05),
        "classifier.bias": (1e-4, 0.0),
    },
    "upernet --BACKBONE_TYPE beit_b": {
        "backbone.body.cls_token": (3e-5 * 0.9**13, 0.05),
        "backbone.body.blocks.3.attn.qkv.q_bias": (3e-5 * 0.9**9, 0.0),
    },
    "upernet --BACKBONE_TYPE beit_l": {"backbone.body.blocks.23.mlp.fc1.weight": (2e-5 * 0.95, 0.05)},
    "upernet --BACKBONE_TYPE convnext": {
        "backbone.body.stem_0.weight": (1e-4 * 0.9**7, 0.05),
        "backbone.body.stem_0.bias": (1e-4 * 0.9**7, 0.0),
        "backbone.body.stages_1.downsample.1.weight": (1e-4 * 0.9**7, 0.05),
        "backbone.body.stages_0.blocks.0.gamma": (1e-4 * 0.9**6, 0.0),
        "backbone.body.stages_3.blocks.2.mlp.fc1.weight": (1e-4 * 0.9**3, 0.05),
        "classifier.weight": (1e-4, 0.05),
    },
    "upernet --BACKBONE_TYPE convnext_b": {
        "backbone.body.stem_0.weight": (1e-4 * 0.9**13, 0.05),
        "backbone.body.stages_3.blocks.2.mlp.fc1.weight": (1e-4 * 0.9**9, 0.05),
    },
    "eomt": {
        "backbone.body.blocks.23.mlp.fc1.weight": (1e-4, 0.05),
        "backbone.body.blocks.0.mlp.fc1.weight": (1e-4 * 0.8**23, 0.05),
        "backbone.body.norm.weight": (1e-4, 0.05),
        "query_decoder.query_features": (1e-4, 0.05),
    },
    "eomt --BACKBONE_TYPE dinov2_base": {
        "backbone.body.blocks.11.mlp.fc1.weight": (1e-4, 0.05),
        "backbone.body.blocks.0.mlp.fc1.weight": (1e-4 * 0.8**11, 0.05),
    },
    "eomt --BACKBONE_TYPE dinov3_base": {
        "backbone.body.blocks.0.mlp.fc1.weight": (2e-5, 0.05),
        "query_decoder.query_features": (2e-4, 0.05),
    },
    "mask2former": {"backbone.body.layer1.0.conv1.weight": (1e-5, 0.05)},
    "vit_adapter": {
        "backbone.body.pos_embed": (1.2e-4 * 0.95**13, 0.01),
        "backbone.body.patch_embed.proj.bias": (1.2e-4 * 0.95**13, 0.0),
        "backbone.body.blocks.0.ls1.gamma": (1.2e-4 * 0.95**12, 0.0),
        "backbone.body.blocks.11.mlp.fc1.weight": (1.2e-4 * 0.95, 0.01),
        "backbone.prior.stem.0.conv.weight": (1.2e-4, 0.01),
        "backbone.interactions.3.injector.gamma": (1.2e-4, 0.0),
        "classifier.weight": (1.2e-4, 0.01),
    },
    "vit_adapter --BACKBONE_TYPE s": {"backbone.body.blocks.11.mlp.fc1.weight": (6e-5 * 0.95, 0.01)},
    "vit_adapter --BACKBONE_TYPE l": {
        "backbone.body.blocks.0.attn.qkv.weight": (2e-5 * 0.95**24, 0.05),
        "backbone.level_embedding": (2e-5, 0.05),
    },
    "vit_adapter --BACKBONE_TYPE b --MODEL_OPTIONS weights=augreg": {
        "backbone.body.blocks.0.attn.qkv.weight": (2e-5, 0.01),
        "backbone.level_embedding": (2e-5, 0.0),
        "decoder.fuse.conv.weight": (2e-4, 0.01),
    },
}


@pytest.mark.parametrize("words", PARAMETERS)
def test_single_parameters(words):
    run = Run(words, "--BATCH_SIZE", "16")
    for name, wanted in PARAMETERS[words].items():
        assert run.rates[name] == pytest.approx(wanted), name


@pytest.mark.parametrize(
    ("backbone", "warmup", "drop_path"), [("mae_b", 1500, 0.1), ("beit_b", 1500, 0.1), ("beit_l", 3000, 0.2)]
)
def test_transformers_whose_rates_fall_from_block_to_block(backbone, warmup, drop_path):
    run = Run(f"upernet --BACKBONE_TYPE {backbone}", "--BATCH_SIZE", "16")
    for curve in run.scheduler.lr_lambdas:
        places = [0, warmup, (TOTAL + warmup) // 2, TOTAL]
        assert [curve(place) for place in places] == pytest.approx([1e-6, 1.0, 0.5, 0.0], abs=1e-12)
    rates = [module.drop_prob for module in run.network.modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(drop_path)
    outputs = run.network.train()(torch.zeros(2, 3, 64, 64, device="meta"))
    assert (len(outputs["aux"]), run.settings.aux_weight, run.settings.loss) == (1, 0.4, "ce")
    assert (run.settings.optimizer, run.settings.momentum, run.settings.clip_grad) == ("adamw", 0.9, 0)


def test_segnext_decoder():
    for size, width in {"t": 256, "s": 256, "b": 512, "l": 1024}.items():
        decoder = Run(f"segnext --BACKBONE_TYPE {size}").network.decoder
        nmf = decoder.hamburger.nmf
        assert nmf.shape[1] == width and (nmf.train_steps, nmf.eval_steps) == (6, 7)


def test_mask2former_loss():
    run = Run("mask2former")
    assert isinstance(build_criterion(run.settings, None), MaskCriterion)
    assert WEIGHTS == (2.0, 5.0, 5.0) and (NO_OBJECT, POINTS) == (0.1, 12_544)  # class, mask, Dice
    outputs = run.network.train()(torch.zeros(2, 3, 64, 64, device="meta"))
    assert outputs["class_logits"][-1].shape == (2, 100, 6) and len(outputs["mask_logits"]) == 10


def test_maskformer_loss():
    own = build_criterion(Run("maskformer").settings, None)
    assert isinstance(own, FocalMaskCriterion) and own.shares == (1.0, 20.0, 1.0)  # class, mask, Dice
    assert (ALPHA, GAMMA) == (0.25, 2)


def test_rate_and_floor_follow_the_batch():
    run = Run("ocrnet --BACKBONE_TYPE resnet18", "--BATCH_SIZE", "8", "--SCALE_LR", "on")
    assert run.settings.lr == pytest.approx(0.01) and run.settings.min_lr == pytest.approx(1e-4)
    assert run.reasons["min_lr"] == "paper recipe for backbone resnet: 0.0002 at batch 16, scaled to 8"


def test_a_given_flag_wins_over_a_backbones_own_recipe():
    run = Run("upernet --BACKBONE_TYPE swin_t", "--INIT_LR", "0.5", "--MODEL_OPTIONS", "drop_path=0.1")
    assert run.settings.lr == 0.5 and run.reasons["lr"] == "--INIT_LR"
    assert run.reasons["weight_decay"] == "paper recipe for backbone swin_"
    assert run.network.blueprint["options"]["drop_path"] == 0.1
