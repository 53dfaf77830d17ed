"""`--RECIPE paper` against the published numbers, by what optimiser, scheduler and network really get."""

import inspect
import re

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from nets import list_models
from nets.registry import describe_option, get_builder
from utils.options import train_options
from utils.training.criterion import build_criterion
from utils.training.focal_mask_loss import ALPHA, GAMMA, FocalMaskCriterion
from utils.training.mask_loss import NO_OBJECT, POINTS, MaskCriterion
from utils.training.matcher import WEIGHTS
from utils.training.optimizers import build_optimizer
from utils.training.recipe import choose_recipe, resolve
from utils.training.schedulers import build_scheduler
from utils.training.setup import build_network

TOTAL = 160_000
CNN = {
    "optimizer": "SGD", "batch": 16, "lr": 0.01, "decay": 5e-4, "momentum": 0.9, "warmup": 0, "power": 0.9,
    "floor": 1e-4, "head": 1, "backbone": 1, "clip": 0, "loss": "ce", "aux": [0.4], "drop_path": 0.0,
    "dropout": 0.1, "no_decay": "",
}  # fmt: skip
ADAMW = {**CNN, "optimizer": "AdamW", "lr": 6e-5, "decay": 0.01, "warmup": 1500, "power": 1.0, "floor": 0.0}
SEGFORMER = {**ADAMW, "head": 10, "aux": [], "drop_path": 0.1, "no_decay": "norms"}
VIT = {**ADAMW, "no_decay": "norms|pos_embed|cls_token"}
CONVNEXT = {**ADAMW, "lr": 1e-4, "decay": 0.05, "drop_path": 0.4, "no_decay": "vectors"}
SETR = {**CNN, "lr": 1e-3, "decay": 0.0, "head": 10, "dropout": 0.0}
SEGMENTER = {**CNN, "batch": 8, "lr": 1e-3, "decay": 0.0, "aux": [], "dropout": None, "drop_path": 0.1}
# The warm-up begins at a tenth, not at a millionth.
REAL_TIME = {**CNN, "warmup": 1000, "start": 0.1, "aux": [1.0] * 2}
FCN_8S = {**CNN, "batch": 20, "lr": 1e-4, "power": 0.0, "floor": 0.0, "aux": [], "dropout": None}
KNET = {
    **CNN, "optimizer": "AdamW", "lr": 1e-4, "clip": 1, "power": "step 0.1 late", "warmup": 1000,
    "start": 1e-3,
}  # fmt: skip
MASK = {
    **CNN, "optimizer": "AdamW", "lr": 1e-4, "decay": 0.05, "floor": 0.0, "backbone": 0.1, "clip": 0.01,
    "loss": "mask", "aux": [], "dropout": None,
    "no_decay": "norms|query_features|query_positions|level_embedding|relative_position_bias_table",
}  # fmt: skip

# Flags -> numbers. "head" and "backbone" are factors on the learning rate, "aux" the weight of each auxiliary
# output, "no_decay" parts of names beside all norm layers ("norms") or all one-dimensional tensors
# ("vectors"); dropout None is not looked at. Sources: MMSegmentation's configs (2024-03); PaddleSeg's
# (2024-10) for SegNet and ENet, 2 and 8 images on each of 4 GPUs; the paper for FCN-8s; the authors' code for
# RefineNet.
TABLE = {
    "fcn --BACKBONE_TYPE resnet18": CNN,
    "fcn --MODEL_OPTIONS version=8s": FCN_8S,
    "pspnet --BACKBONE_TYPE resnet18": CNN,
    "deeplab --BACKBONE_TYPE resnet18": CNN,
    "deeplabv3 --BACKBONE_TYPE resnet18": CNN,
    "unet --BACKBONE_TYPE resnet18": CNN,
    "unet --BACKBONE_TYPE s5_d16": CNN,
    "segnet": {**CNN, "batch": 8, "decay": 4e-5, "floor": 0.0, "aux": [], "dropout": None},
    "enet": {
        **CNN, "optimizer": "Adam", "batch": 32, "lr": 1e-3, "decay": 2e-4, "floor": 0.0, "aux": [],
        "dropout": None,
    },
    "refinenet --BACKBONE_TYPE resnet50": {
        **CNN, "batch": 1, "lr": 5e-5, "head": 10, "power": "step 0.1", "aux": [], "dropout": None,
    },
    "bisenet": {**REAL_TIME, "lr": 0.025},
    "bisenet --BACKBONE_TYPE resnet50": {**REAL_TIME, "lr": 0.05},
    "bisenetv2": {**REAL_TIME, "lr": 0.05, "aux": [1.0] * 4},
    "cgnet": {**CNN, "optimizer": "Adam", "lr": 1e-3, "aux": [], "dropout": 0.0},
    "ddrnet": {**CNN, "batch": 12, "floor": 0.0, "dropout": 0.0, "loss": "ohem(threshold=0.9,kept=0.02)"},
    "erfnet": {**CNN, "aux": [], "dropout": None},
    "fast_scnn": {**CNN, "batch": 32, "lr": 0.12, "decay": 4e-5, "aux": [0.4] * 2},
    "icnet --BACKBONE_TYPE resnet18": {**CNN, "batch": 8, "aux": [0.4] * 2, "dropout": 0.0},
    # The auxiliary output of PIDNet has its loss, of weight 0.4, in another place.
    "pidnet": {
        **CNN, "batch": 12, "floor": 0.0, "aux": [0.0], "loss": "ohem(threshold=0.9,kept=0.02)",
    },
    "semask": {
        **ADAMW, "lr": 1e-4, "decay": 1e-4, "drop_path": 0.3,
        "no_decay": "norms|relative_position_bias_table",
    },
    "stdc": {**REAL_TIME, "batch": 48, "loss": "ohem(threshold=0.7,kept=10000)"},
    "hrnet --BACKBONE_TYPE w18s": {**CNN, "aux": [], "dropout": 0.0},
    "ocrnet --BACKBONE_TYPE w18s": {**CNN, "dropout": 0.0},
    "ocrnet --BACKBONE_TYPE resnet101": {**CNN, "lr": 0.02, "floor": 2e-4},
    "upernet --BACKBONE_TYPE resnet18": CNN,
    "upernet --BACKBONE_TYPE swin_t": {
        **ADAMW, "drop_path": 0.3, "no_decay": "norms|absolute_pos_embed|relative_position_bias_table",
    },
    "upernet --BACKBONE_TYPE vit_tiny": VIT,
    "upernet --BACKBONE_TYPE deit_tiny_patch16_224": VIT,
    "upernet --BACKBONE_TYPE convnext_t": CONVNEXT,
    "upernet --BACKBONE_TYPE convnext_s": CONVNEXT,
    "upernet --BACKBONE_TYPE convnext_xl": {**CONVNEXT, "lr": 8e-5},
    "upernet --BACKBONE_TYPE twins_svt_s": {**ADAMW, "drop_path": 0.2, "no_decay": "norms|pos_block"},
    "upernet --BACKBONE_TYPE twins_pcpvt_s": {
        **ADAMW, "batch": 32, "drop_path": 0.2, "no_decay": "norms|pos_block",
    },
    "lraspp --BACKBONE_TYPE mobilenet_v3_small": {**CNN, "aux": []},
    "sem_fpn --BACKBONE_TYPE resnet18": {**CNN, "aux": []},
    "sem_fpn --BACKBONE_TYPE poolformer_s12": {
        **CNN, "optimizer": "AdamW", "batch": 32, "lr": 2e-4, "decay": 1e-4, "floor": 0.0, "aux": [],
    },
    "sem_fpn --BACKBONE_TYPE twins_pcpvt_s": {
        **CNN, "optimizer": "AdamW", "batch": 32, "lr": 1e-4, "decay": 1e-4, "aux": [], "drop_path": 0.2,
    },
    "attention_unet": {
        **CNN, "optimizer": "Adam", "batch": 2, "lr": 1e-4, "decay": 1e-6, "power": "step 0.5", "floor": 0.0,
        "loss": "dice", "aux": [], "dropout": 0.0,
    },
    "linknet": {
        **CNN, "optimizer": "RMSprop", "batch": 10, "lr": 5e-4, "decay": 2e-4, "momentum": 0.0, "power": 0.0,
        "floor": 0.0, "aux": [], "dropout": 0.0,
    },
    "manet": {
        **CNN, "optimizer": "Adam", "lr": 1e-3, "decay": 0.0, "floor": 0.0, "loss": "ce+dice", "aux": [],
        "dropout": 0.0,
    },
    "pan --BACKBONE_TYPE resnet18": {
        **CNN, "lr": 4e-3, "decay": 1e-4, "floor": 0.0, "aux": [], "dropout": 0.0,
    },
    "u2net": {
        **CNN, "optimizer": "Adam", "batch": 12, "lr": 1e-3, "decay": 0.0, "power": 0.0, "floor": 0.0,
        "aux": [1.0] * 6, "dropout": 0.0,
    },
    "unet_plusplus": {
        **CNN, "optimizer": "Adam", "lr": 3e-4, "decay": 0.0, "power": 0.0, "floor": 0.0,
        "loss": "ce:0.5+dice", "aux": [1.0] * 3, "dropout": 0.0,
    },
    "segformer --BACKBONE_TYPE b0": SEGFORMER,
    "segformer --BACKBONE_TYPE b5": SEGFORMER,
    "dpt --BACKBONE_TYPE tiny": {**VIT, "aux": []},
    "segmenter --BACKBONE_TYPE tiny": SEGMENTER,
    "segmenter --BACKBONE_TYPE small --MODEL_OPTIONS decoder=linear": {**SEGMENTER, "dropout": 0.0},
    "segnext --BACKBONE_TYPE t": SEGFORMER,
    "segnext --BACKBONE_TYPE s": SEGFORMER,
    "segnext --BACKBONE_TYPE b": SEGFORMER,
    "segnext --BACKBONE_TYPE l": {**SEGFORMER, "drop_path": 0.3},
    "setr --BACKBONE_TYPE base --MODEL_OPTIONS decoder=naive": {**SETR, "aux": [0.4] * 3},
    "setr --BACKBONE_TYPE large --MODEL_OPTIONS decoder=pup": {**SETR, "aux": [0.4] * 3},
    "setr --BACKBONE_TYPE base --MODEL_OPTIONS decoder=mla": {**SETR, "aux": [0.4] * 4},
    **{
        f"{family} --BACKBONE_TYPE resnet18": CNN
        for family in (
            "ann", "apcnet", "ccnet", "dmnet", "dnlnet", "emanet", "encnet", "fastfcn", "gcnet", "isanet",
            "nonlocal_net", "psanet",
        )
    },
    "danet --BACKBONE_TYPE resnet18": {**CNN, "aux": [1.0, 1.0, 0.4]},
    "knet --BACKBONE_TYPE resnet50": KNET,
    "knet --BACKBONE_TYPE swin_l --MODEL_OPTIONS decoder=upernet": {
        **KNET, "lr": 6e-5, "drop_path": 0.4, "no_decay": "norms|relative_position_bias_table",
    },
    "pointrend": {**CNN, "warmup": 200, "start": 0.1, "aux": [], "dropout": 0.0},
    "mask2former --BACKBONE_TYPE resnet50": {**MASK, "frozen_norm": True},
    "mask2former --BACKBONE_TYPE swin_t": {**MASK, "drop_path": 0.3},
    "maskformer --BACKBONE_TYPE resnet50": {**MASK, "decay": 1e-4, "loss": "mask_focal", "no_decay": ""},
    "maskformer --BACKBONE_TYPE swin_t": {
        **MASK, "lr": 6e-5, "decay": 0.01, "backbone": 1, "power": 1.0, "warmup": 1500, "drop_path": 0.3,
        "loss": "mask_focal", "no_decay": "norms|query_positions|relative_position_bias_table",
    },
}  # fmt: skip
# Rate of each part relative to `lr` under layer-wise decay: 0.9 per stage, counted below 6 or 12 groups; the
# halvings between the stages belong to the stem, norms on the maps to the head.
STAGES = {
    r"backbone\.(norms|levels)\.": 0,
    r"backbone\.body\.stem_": 1,
    r"backbone\.body\.stages_\d\.downsample\.": 1,
    r"backbone\.body\.stages_0\.blocks": 2,
    r"backbone\.body\.stages_1\.blocks": 3,
    r"backbone\.body\.stages_2\.blocks": 4,
    r"backbone\.body\.stages_3\.blocks": 5,
}
GROUPS = {"convnext_t": 6, "convnext_s": 12, "convnext_xl": 12}
NORMS = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


def needs(words: str) -> None:
    """Skip a row whose network is not there yet."""
    family = words.split()[0]
    if family not in (*list_models(), "deeplabv3", "bisenetv2"):
        pytest.skip(f"there is no family {family} yet")
    version = inspect.signature(get_builder("fcn")).parameters["version"]
    if "version=8s" in words and "8s" not in describe_option(version).choices:
        pytest.skip("there is no fcn of version 8s yet")


class Run:
    """A network without memory for its weights and what the paper recipe makes of it."""

    def __init__(self, words: str, *more: str):
        needs(words)
        self.options = train_options(["--MODEL_TYPE", *words.split(), "--RECIPE", "paper", *more])
        with torch.device("meta"):
            self.network = build_network(self.options, bands=3, num_classes=5)
        self.settings, decisions = resolve(self.options, choose_recipe(self.options), TOTAL)
        self.reasons = {name: reason for name, _, reason in decisions}
        self.optimizer = build_optimizer(self.network, self.settings)
        self.names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        self.rates = {
            self.names[id(parameter)]: (group["lr"], group["weight_decay"])
            for group in self.optimizer.param_groups
            for parameter in group["params"]
        }
        self.scheduler = build_scheduler(self.optimizer, self.settings, TOTAL, step=-(-TOTAL // 3))


@pytest.fixture(params=TABLE, scope="module")
def row(request):
    return Run(request.param, "--BATCH_SIZE", str(TABLE[request.param]["batch"])), TABLE[request.param]


def test_optimizer(row):
    run, wanted = row
    assert type(run.optimizer).__name__ == wanted["optimizer"]
    for group in run.optimizer.param_groups:
        momentum = group["betas"][0] if "betas" in group else group["momentum"]
        assert momentum == wanted["momentum"]
    assert run.settings.lr == pytest.approx(wanted["lr"]) and run.settings.clip_grad == wanted["clip"]


def expected_rates(run: Run, wanted: dict) -> dict[str, tuple[float, float]]:
    """Return what each parameter must get, found from the network by other means than the optimiser's."""
    groups = GROUPS.get(run.options.BACKBONE_TYPE)
    norms = {
        id(p) for module in run.network.modules() if isinstance(module, NORMS) for p in module.parameters()
    }
    kind, *parts = [part for part in wanted["no_decay"].split("|") if part] or [""]
    rates = {}
    for name, parameter in run.network.named_parameters():
        inside = name.startswith("backbone.")
        lr = wanted["lr"] * wanted["backbone" if inside else "head"]
        if groups and inside:
            place = next(place for pattern, place in STAGES.items() if re.match(pattern, name))
            lr *= 0.9 ** (groups + 2 - place) if place else 1
        one_dimensional = parameter.ndim < 2 and kind == "vectors"
        is_norm = id(parameter) in norms and kind == "norms"
        spared = one_dimensional or is_norm or any(part in name for part in parts)
        rates[name] = (lr, 0.0 if spared else wanted["decay"])
    return rates


def test_every_parameter_gets_its_rate_and_its_decay(row):
    run, wanted = row
    expected = expected_rates(run, wanted)
    frozen = {
        f"backbone.{name}.{own}"
        for name, module in run.network.backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d) and wanted.get("frozen_norm")
        for own in ("weight", "bias")
    }
    frozen |= {name for name in expected if name.startswith("decoder.middle.")}  # EMANet's never learns
    assert set(run.rates) == set(expected) - frozen
    for name, (lr, decay) in run.rates.items():
        assert lr == pytest.approx(expected[name][0]), name
        assert decay == expected[name][1], name


def test_schedule(row):
    run, wanted = row
    warm = wanted["warmup"]
    for curve, base in zip(run.scheduler.lr_lambdas, run.scheduler.base_lrs, strict=True):
        if wanted["power"] == "step 0.1 late":  # at three quarters and nine tenths
            assert curve(warm // 2) == pytest.approx((1 + wanted["start"]) / 2)
            places = [warm, 3 * TOTAL // 4 - 1, 3 * TOTAL // 4, 9 * TOTAL // 10 - 1, 9 * TOTAL // 10]
            assert [curve(place) for place in places] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
            continue
        if str(wanted["power"]).startswith("step "):  # after each third of the run
            ratio = float(wanted["power"].removeprefix("step "))
            assert [curve(0), curve(TOTAL // 2), curve(TOTAL)] == pytest.approx([1, ratio, ratio**2])
            continue
        half, end = (
            wanted["floor"] + (base - wanted["floor"]) * left ** wanted["power"] for left in (0.5, 0.0)
        )
        start = wanted.get("start", 1e-6)
        assert base * curve(0) == pytest.approx(base * start if warm else base)
        assert base * curve(warm // 2) == pytest.approx(base * (1 + start) / 2 if warm else base, rel=1e-5)
        assert base * curve(warm) == pytest.approx(base)
        assert base * curve((TOTAL + warm) // 2) == pytest.approx(half)
        assert base * curve(TOTAL) == pytest.approx(end, abs=1e-15)


def test_network_and_loss(row):
    run, wanted = row
    outputs = run.network.train()(torch.zeros(2, 3, 64, 64, device="meta"))
    assert run.settings.loss == wanted["loss"]
    count, aux = len(outputs.get("aux", [])), run.settings.aux_weight
    assert [*aux] == wanted["aux"] if isinstance(aux, tuple) else [aux] * count == wanted["aux"]
    assert count == len(wanted["aux"]) and {*",".join(run.settings.extra_losses).split(",")} <= {"", *outputs}
    rates = [module.drop_prob for module in run.network.modules() if isinstance(module, DropPath)]
    assert max(rates, default=0.0) == pytest.approx(wanted["drop_path"])
    if wanted["dropout"] is not None:
        assert {m.p for m in run.network.modules() if isinstance(m, nn.Dropout2d)} == {wanted["dropout"]}


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
