"""Flags: names, one-line mistakes, speed of --help."""

import sys

import pytest

from nets.errors import UserError
from tests.helpers import ROOT, quick_answer
from utils import options
from utils.flags import DATA, HARDWARE, NETWORK, PREDICTING, PROCESSES, SHARING, TRAINING
from utils.inference_flags import EVALUATION, EXPORT, PREDICTION, SCENES, WINDOWS
from utils.run_flags import RUN

PROGRAMS = ["train.py", "evaluate.py", "predict_small.py", "predict_large.py", "export.py"]
PROGRAMS += ["Structure.py", "compare.py"]
# The users' own names: a flag that goes or changes its name breaks their scripts.
TRAIN_FLAGS = [
    "DATASET_PATH",
    "DATASET_FORMAT",
    "LABEL_DIR",
    "TASK",
    "LABEL_MAP",
    "BAND_INDEX",
    "EXTRA_IMAGES",
    "VAL_FRACTION",
    "MODE",
    "GPU_ID",
    "GPU_LIST",
    "USE_CPU",
    "MODEL_TYPE",
    "BACKBONE_TYPE",
    "MODEL_OPTIONS",
    "BANDS",
    "NUM_CLASS",
    "BATCH_SIZE",
    "EPOCHS",
    "MAX_ITERS",
    "CROP_SIZE",
    "FLIP",
    "AUGMENT",
    "LOSS_TYPE",
    "LABEL_SMOOTHING",
    "OPTIMIZER_TYPE",
    "INIT_LR",
    "MOMENTUM",
    "WEIGHT_DECAY",
    "HEAD_LR_FACTOR",
    "BACKBONE_LR_FACTOR",
    "LAYER_DECAY",
    "LR_SCHEDULER",
    "LR_STEP",
    "STEP_RATIO",
    "POLY_POWER",
    "MIN_LR",
    "WARMUP_ITERS",
    "LR_FIND",
    "AMP",
    "INIT_TYPE",
    "PRETRAIN_MODEL",
    "PRETRAIN_BACKBONE",
    "STEM_INIT",
    "NORMALIZATION",
    "SCALING",
    "CLASS_WEIGHTS",
    "RARE_CLASS_SAMPLING",
    "KEEP_DECODED",
    "MODEL_SAVE_EPOCHS",
    "KEEP",
    "SAVE_ITERS",
    "TENSORBOARD",
    "WANDB",
    "VAL_INTERVAL",
    "VAL_WINDOW",
    "PATIENCE",
    "NAN_PATIENCE",
    "RUN_NAME",
    "RESUME",
    "CONFIG",
    "RECIPE",
    "SEED",
    "NUM_WORKERS",
    "DETERMINISTIC",
    "PARALLEL",
    "PROCESSES",
    "SYNC_BN",
    "ACCUMULATE",
    "SCALE_LR",
    "CLIP_GRAD",
    "EMA",
    "FREEZE",
    "GRAD_CHECKPOINT",
    "CHANNELS_LAST",
    "COMPILE",
    "TF32",
]


def test_train_has_exactly_the_promised_flags():
    parsed = vars(options.train_options([]))
    assert sorted(name for name in parsed if name.isupper()) == sorted(TRAIN_FLAGS)


def test_defaults():
    parsed = options.train_options([])
    assert (parsed.DATASET_PATH, parsed.MODE, parsed.MODEL_TYPE) == ("./datasets/", "all", "unet")
    assert (parsed.BATCH_SIZE, parsed.EPOCHS, parsed.MODEL_SAVE_EPOCHS, parsed.KEEP) == (4, 1, 10, 0)
    assert (parsed.RECIPE, parsed.PRETRAIN_BACKBONE, parsed.DETERMINISTIC) == ("plain", "none", "on")


@pytest.mark.parametrize("flag", [flag.name for flag in HARDWARE[1]])
def test_hardware_flags_are_the_same_everywhere(flag):
    for parse in (options.evaluate_options, options.predict_small_options, options.predict_large_options):
        assert flag in vars(parse(["--WEIGHTS", "x.pth"]))


def test_no_flag_is_defined_twice_in_a_program():
    for groups in (
        (DATA, NETWORK, TRAINING, RUN, PROCESSES, HARDWARE),
        (EVALUATION, SHARING, PREDICTING),
        (PREDICTION, PREDICTING),
        (PREDICTION, WINDOWS, SCENES, SHARING, PREDICTING),
        (EXPORT,),
    ):
        names = [flag.name for _, flags in groups for flag in flags]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--EPOCH", "3"], "there is no flag --EPOCH; did you mean --EPOCHS?"),
        (["--epochs", "3"], "did you mean --EPOCHS?"),
        (["--EPOCHS", "0"], "argument --EPOCHS: 0 is given; it must be at least 1"),
        (["--EPOCHS", "many"], "argument --EPOCHS: invalid int value: 'many'"),
        (["--INIT_LR", "nan"], "nan is given; it must be above 0"),
        (["--CROP_SIZE", "1,2,3"], "one number or H,W of at least 32 pixels"),
        (["--MODE", "some"], "single, multi and all exist"),
        (["--LOSS_TYPE", "mse"], "argument --LOSS_TYPE: there is no loss 'mse'; nearest: mask; ce, focal, "),
        (["--LOSS_TYPE", "ce+dise:0.5"], "there is no loss 'dise'; nearest: dice; ce, "),
        (["--LOSS_TYPE", "ce+ce:2"], "'ce+ce:2' is given; each loss can be written once"),
        (["--LOSS_TYPE", "ce+mask"], "mask is a sum of losses of its own and stands alone"),
        (["--LOSS_TYPE", "dice:half"], "'dice:half' is given; a number of at least 0 is wanted"),
        (["--LOSS_TYPE", "ce:0"], "'ce:0' is given; a weight is above 0"),
        (["--LOSS_TYPE", "focal(gama=3)"], "focal has no parameter 'gama'; nearest: gamma; it has: gamma"),
        (["--LOSS_TYPE", "focal(gamma=30)"], "'gamma=30' is given; a number of at least 0 and at most 10"),
        (["--LOSS_TYPE", "class_presence"], "there is no loss 'class_presence'"),
        (["--LOSS_TYPE", "focal(gamma=3"], "a loss is written as in ce, dice:0.5 or focal(gamma=3):0.5"),
    ],
)
def test_mistakes_are_one_line(words, message):
    with pytest.raises(UserError) as raised:
        options.train_options(words)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_values():
    parsed = options.train_options(["--CROP_SIZE", "176,240", "--MODE", "muti", "--RESUME"])
    assert parsed.CROP_SIZE == (176, 240) and parsed.MODE == "multi" and parsed.RESUME == ""
    assert parsed.given == {"CROP_SIZE", "MODE", "RESUME"}
    assert options.train_options(["--CROP_SIZE=64"]).CROP_SIZE == (64, 64)
    assert options.plain_options(parsed)["CROP_SIZE"] == [176, 240]


@pytest.mark.parametrize("parse", [options.evaluate_options, options.predict_small_options])
def test_missing_weights(parse):
    with pytest.raises(UserError, match="--WEIGHTS is missing"):
        parse([])


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_answers_without_torch(program):
    code = (
        f"import sys, runpy\nsys.argv = ['{program}', '--help']\n"
        f"try: runpy.run_path('{program}', run_name='__main__')\nexcept SystemExit: pass\n"
        "print('torch' in sys.modules)"
    )
    printed = quick_answer([sys.executable, "-c", code], ROOT)
    assert printed.rstrip().endswith("False"), "torch was imported before the flags were read"
    assert "hardware" in printed or program in ("export.py", "Structure.py", "compare.py")


def test_scores_and_augmentations():
    parse = options.predict_large_options
    words = ["--WEIGHTS", "x.pth"]
    assert parse(words).SCORES is None and parse(words).TTA is None
    assert parse([*words, "--SCORES"]).SCORES == (("probabilities", "float32"),)
    given = parse([*words, "--SCORES", "probabilities:uint8, Entropy", "--TTA", "flip,rot,0.75,flip,2"])
    assert given.SCORES == (("probabilities", "uint8"), ("entropy", "float32"))
    assert given.TTA == ("flip", "rot", 0.75, 2.0) and parse([*words, "--TTA", "none"]).TTA == ()
    for flag, word, message in [
        (
            "--SCORES",
            "confidence:int8",
            "'confidence:int8' is given; probabilities, confidence, ",
        ),
        ("--SCORES", "entropy,entropy:uint8", "each kind can be written once"),
        ("--TTA", "flop", "'flop' is given; flip, rot and factors of size from 0.25 to 4 exist"),
        ("--TTA", "flip,nan", "'nan' is given"),
        ("--BLEND", "cosin", "invalid choice: 'cosin'"),
    ]:
        with pytest.raises(UserError) as raised:
            parse([*words, flag, word])
        assert message in str(raised.value)
