"""The table of all command-line flags: name, default, unit and reason, each once.

A default of None means that something better informed decides: the data (`--BANDS`), the recipe
(`--INIT_LR`), the checkpoint (`--WINDOW`). Nothing here imports torch, so that `--help` answers at once.
"""

from dataclasses import replace

from utils.data.augment_level import DEFAULT, KEYS, LEVELS
from utils.dataset_flags import TRAINING_SET
from utils.flag_types import Flag, augment, number, parallel_mode, scaling, size_pair
from utils.optimisation_flags import OPTIMISATION

BATCH_SIZE = Flag("BATCH_SIZE", 4, "images or windows per step, the total over all devices", number(int, 1))
HARDWARE = (
    "hardware and loading (the same in every program that runs a network)",
    (
        Flag(
            "MODE",
            "all",
            "GPUs to use: single, multi (also: muti) or all; without a GPU the CPU is used",
            parallel_mode,
            metavar="{single,multi,all}",
        ),
        Flag("GPU_ID", None, "number of the one GPU to use", number(int, 0)),
        Flag("GPU_LIST", None, 'numbers of the GPUs to use, as in "0,1"', metavar='"0,1"'),
        Flag("USE_CPU", False, "compute on the CPU even where a GPU is present", None),
        BATCH_SIZE,
        Flag(
            "NUM_WORKERS",
            None,
            "how many read images: processes in training and evaluation, threads in prediction; 0: none "
            "but the main one; default: chosen from the cores",
            number(int, 0),
        ),
    ),
)

# Nothing that is predicted depends on the batch, so it need not be chosen.
FREE_BATCH = replace(
    BATCH_SIZE,
    default=None,
    help=f"{BATCH_SIZE.help}; default: 4 for each; scenes take fewer windows where 4 do not fit in memory",
)
PREDICTING = (HARDWARE[0], tuple(FREE_BATCH if flag is BATCH_SIZE else flag for flag in HARDWARE[1]))

WEIGHTS = Flag("WEIGHTS", None, "checkpoint written by train.py; it knows network, classes and bands")

DATA = (
    "data",
    (
        *TRAINING_SET,
        Flag("BANDS", None, "bands of an image; default: what the images have", number(int, 1)),
        Flag(
            "NUM_CLASS",
            None,
            "number of classes; default: what classes.json or the labels say",
            number(int, 1),
        ),
        Flag(
            "CROP_SIZE",
            None,
            "training crop in pixels, one number or H,W; default: 512, or the tile if smaller",
            size_pair,
            metavar="H,W",
        ),
        Flag(
            "FLIP",
            None,
            "random flips: none, h (left-right), hv, d4 (and quarter turns); "
            "default: d4 where images carry a CRS, else h; none with --AUGMENT none",
            choices=("none", "h", "hv", "d4"),
        ),
        Flag(
            "AUGMENT",
            DEFAULT,
            "random changes: none, light (scale 0.5 to 2 and flips), standard (also brightness and contrast "
            'of each band), strong (everything, for long runs); single keys after it: "standard,rotate=15,'
            f'scale=0.8:1.2"; keys: {", ".join(KEYS)}',
            augment,
            metavar="{" + ",".join(LEVELS) + "}[,KEY=NUMBER...]",
        ),
        Flag(
            "NORMALIZATION",
            None,
            "band mean and deviation from the training data or from the loaded checkpoint; "
            "default: data, or checkpoint when --PRETRAIN_MODEL fits these bands",
            choices=("data", "checkpoint"),
        ),
        Flag(
            "SCALING",
            "standard",
            "what the bands' mean and deviation are measured by: standard (themselves), percentile (2 and "
            "98, so that a few glaring or wrong values do not count) or percentile:1,99",
            scaling,
            metavar="{standard,percentile[:LOW,HIGH]}",
        ),
        Flag(
            "CLASS_WEIGHTS",
            "none",
            "loss weight per class: none, auto (median frequency, 0.1 to 10), inverse (frequency, no limit), "
            'effective (number of pixels, Cui et al.), "0.03,0.26,0.71", or a file of numbers or of names '
            "and numbers",
        ),
        Flag(
            "RARE_CLASS_SAMPLING",
            None,
            "draw crops around rare classes, a class by softmax((1 - frequency) / T) as in DAFormer: the "
            "smaller T, the oftener the rarest; without a number 0.01",
            number(float, 1e-4),
            bare=0.01,
            metavar="T",
        ),
        Flag(
            "KEEP_DECODED",
            None,
            "memory for training images that are decoded once and kept, GiB for all processes of a machine "
            "together; 0: none; default: a quarter of what is free",
            number(float, 0, 2**20),
            metavar="GIB",
        ),
    ),
)

NETWORK = (
    "network",
    (
        Flag("MODEL_TYPE", "unet", "network family; Structure.py --LIST shows all"),
        Flag("BACKBONE_TYPE", None, "backbone or size of the family; default: the family's own"),
        Flag("MODEL_OPTIONS", "", "further options of the family", metavar='"key=value,..."'),
        Flag(
            "INIT_TYPE",
            "kaiming",
            "start of the weights: kaiming (with each family's own rules), normal, xavier, orthogonal",
            choices=("kaiming", "normal", "xavier", "orthogonal"),
        ),
        Flag(
            "PRETRAIN_MODEL",
            None,
            "checkpoint to start from: loads what fits, lists what does not",
            metavar="FILE",
        ),
        Flag(
            "PRETRAIN_BACKBONE",
            "none",
            "backbone weights: none, imagenet (the only flag that downloads) or a file",
            metavar="{none,imagenet,FILE}",
        ),
        Flag(
            "STEM_INIT",
            "rgb_mean",
            "pretrained first layer for other band counts: RGB kept and the rest from "
            "their mean, random, or RGB repeated",
            choices=("rgb_mean", "random", "repeat"),
        ),
    ),
)

SHARERS = Flag("PROCESSES", None, "processes that share the work on the CPU; default: 1", number(int, 1))

SHARING = ("several processes (one for each GPU; on many machines with torchrun)", (SHARERS,))

PROCESSES = (
    "training on several devices and machines",
    (
        Flag(
            "PARALLEL",
            "ddp",
            "several GPUs: ddp, one process for each, also on many machines with torchrun; dp, one process "
            "for all; fsdp, as ddp but each holds only a share of the weights",
            choices=("ddp", "dp", "fsdp"),
        ),
        SHARERS,
        Flag(
            "SYNC_BN",
            "auto",
            "batch statistics over all GPUs instead of each one's share; auto: on (the CPU has none)",
            choices=("auto", "on", "off"),
        ),
    ),
)

TRAINING = (
    "training",
    (
        Flag("EPOCHS", 1, "passes over the training tiles; real runs take 100 or more", number(int, 1)),
        Flag("MAX_ITERS", None, "train this many iterations instead of --EPOCHS", number(int, 1)),
        Flag(
            "RECIPE",
            "plain",
            "plain: trains any family from scratch; paper: the official settings, lr scaled with the batch",
            choices=("plain", "paper"),
        ),
        *OPTIMISATION,
        Flag(
            "AMP",
            "auto",
            "what the network computes in: bf16, fp16 (GPUs only), off (float32); "
            "auto: bf16 or fp16 on CUDA GPUs, float32 elsewhere",
            choices=("auto", "bf16", "fp16", "off"),
        ),
        Flag(
            "ACCUMULATE",
            None,
            "a step is taken on this many batches together, exactly as on one large batch; default: 1, or "
            "what --SCALE_LR auto says",
            number(int, 1),
        ),
        Flag(
            "SCALE_LR",
            "auto",
            "a batch unlike the paper recipe's: auto accumulates up to it where it divides, else scales the "
            "learning rate in proportion; on scales; off does neither",
            choices=("auto", "on", "off"),
        ),
        Flag(
            "CLIP_GRAD",
            None,
            "largest norm of the gradient, 0: no limit; default: the recipe's",
            number(float, 0),
        ),
        Flag(
            "EMA",
            None,
            "validate and save the moving average of the weights with this decay per iteration, as in 0.999",
            number(float, 0, 0.999999),
            metavar="DECAY",
        ),
        Flag(
            "FREEZE",
            None,
            'parts that are not trained, as in "backbone", "backbone.body.*,*.norm1" or "batch_norm" (all of '
            "them); frozen batch norms keep their statistics",
            metavar="NAMES",
        ),
        Flag("GRAD_CHECKPOINT", False, "compute the backbone's blocks twice instead of keeping them", None),
        Flag("CHANNELS_LAST", False, "channels-last memory format, faster on GPUs with --AMP", None),
        Flag("COMPILE", False, "torch.compile: minutes to start, faster steps", None),
        Flag(
            "TF32",
            "auto",
            "10-bit fractions in the products of float32 on GPUs; auto: on, but with --AMP off",
            choices=("auto", "on", "off"),
        ),
        Flag("SEED", 0, "seed of weights, order and augmentation", number(int, 0)),
        Flag(
            "DETERMINISTIC",
            "on",
            "on: the same bits each time where PyTorch can; strict: an error where it cannot; off: faster",
            choices=("on", "off", "strict"),
        ),
    ),
)

STRUCTURE = (
    "what to show",
    (
        WEIGHTS,
        Flag("LIST", False, "list the network families, their backbones and options", None),
        Flag("DEPTH", 3, "levels of modules in the table", number(int, 1)),
    ),
)
