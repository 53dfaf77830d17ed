"""The flags of train.py that choose loss, optimiser and learning rates; nothing here imports torch."""

from utils.flag_types import Flag, loss, number
from utils.loss_terms import MAIN

OPTIMISATION = (
    Flag(
        "LOSS_TYPE",
        None,
        f"main loss: {', '.join(MAIN)} (mask where a network predicts masks, the others per pixel), or a "
        'weighted sum, also with parameters: "ce+dice:0.5", "focal(gamma=3)"; default: the recipe\'s',
        loss,
        metavar="NAME[+NAME:WEIGHT...]",
    ),
    Flag(
        "LABEL_SMOOTHING",
        None,
        "ce, ohem: share of the truth that is spread over all classes; default: the recipe's",
        number(float, 0, 0.99),
    ),
    Flag(
        "OPTIMIZER_TYPE",
        None,
        "optimiser: adam, adamw, sgd, or any of torch.optim or timm by name; default: the recipe's",
        metavar="NAME",
    ),
    Flag("INIT_LR", None, "learning rate at the start; default: the recipe's", number(float, 0, above=True)),
    Flag(
        "MOMENTUM",
        None,
        "SGD momentum, Adam's first beta; default: the recipe's",
        number(float, 0, 0.9999),
    ),
    Flag("WEIGHT_DECAY", None, "weight decay; default: the recipe's", number(float, 0)),
    Flag(
        "HEAD_LR_FACTOR",
        None,
        "learning rate outside the backbone, relative to --INIT_LR; default: the recipe's",
        number(float, 0, above=True),
    ),
    Flag(
        "BACKBONE_LR_FACTOR",
        None,
        "learning rate of the backbone, relative to --INIT_LR; default: the recipe's",
        number(float, 0, above=True),
    ),
    Flag(
        "LAYER_DECAY",
        None,
        "factor on the learning rate per layer of the backbone, from the head towards the image "
        "(backbones of timm); default: the recipe's",
        number(float, 0, 1, above=True),
    ),
    Flag(
        "LR_SCHEDULER",
        None,
        "learning-rate curve, per iteration; default: the recipe's",
        choices=("poly", "step", "cos", "exp", "onecycle", "constant"),
    ),
    Flag(
        "LR_STEP",
        None,
        "step, exp: epochs (or iterations with --MAX_ITERS) per decay; default: a third of the run",
        number(int, 1),
    ),
    Flag(
        "STEP_RATIO",
        None,
        "step, exp: factor per --LR_STEP; default: the recipe's, or 0.1",
        number(float, 0, 1, above=True),
    ),
    Flag("POLY_POWER", None, "poly: exponent; default: the recipe's", number(float, 0)),
    Flag("MIN_LR", None, "floor of the learning rate; default: the recipe's", number(float, 0)),
    Flag("WARMUP_ITERS", None, "iterations of linear warm-up; default: the recipe's", number(int, 0)),
    Flag(
        "LR_FIND",
        None,
        "do not train, but try learning rates from 1e-7 to 1 over this many iterations (without a number "
        "100), draw the loss over them and suggest one",
        number(int, 10),
        bare=100,
        metavar="ITERATIONS",
    ),
)
