"""The published numbers of training, and runs of `--RECIPE paper`, for tests."""

import torch

from utils.options import train_options
from utils.training.optimizers import build_optimizer, freeze_norms
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
    "setr --BACKBONE_TYPE base --MODEL_OPTIONS decoder=mla": {
        **SETR, "aux": [0.4] * 4, "with_backbone": ("aggregation.",),
    },
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


class Run:
    """A network without memory for its weights and what the paper recipe makes of it."""

    def __init__(self, words: str, *more: str):
        self.options = train_options(["--MODEL_TYPE", *words.split(), "--RECIPE", "paper", *more])
        with torch.device("meta"):
            self.network = build_network(self.options, bands=3, num_classes=5)
        self.settings, decisions = resolve(self.options, choose_recipe(self.options), TOTAL)
        self.reasons = {name: reason for name, _, reason in decisions}
        freeze_norms(self.network, self.settings)
        self.optimizer = build_optimizer(self.network, self.settings)
        self.names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        self.rates = {
            self.names[id(parameter)]: (group["lr"], group["weight_decay"])
            for group in self.optimizer.param_groups
            for parameter in group["params"]
        }
        self.scheduler = build_scheduler(self.optimizer, self.settings, TOTAL, step=-(-TOTAL // 3))
