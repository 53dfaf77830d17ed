"""The flags of each program, parsed; nothing here imports torch, so a mistyped flag answers at once."""

import argparse
import difflib
import sys

from nets.errors import UserError
from utils.config_file import config_words
from utils.flags import DATA, HARDWARE, NETWORK, PREDICTING, PROCESSES, SHARING, STRUCTURE, TRAINING
from utils.inference_flags import EVALUATION, EXPORT, PREDICTION, SCENES, WINDOWS
from utils.run_flags import COMPARISON, RUN

TRAIN = (DATA, NETWORK, TRAINING, RUN, PROCESSES, HARDWARE)


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line with the nearest valid flag."""

    def error(self, message: str) -> None:
        """Raise `UserError` instead of printing the whole usage."""
        prefix = "unrecognized arguments: "
        if message.startswith(prefix):
            given = message.removeprefix(prefix).split()[0].split("=")[0]
            known = [name for action in self._actions for name in action.option_strings]
            nearest = difflib.get_close_matches(given.upper(), known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]}?" if nearest else "the flags are upper-case"
            message = f"there is no flag {given}; {hint} (--help lists all)"
        raise UserError(message)


def parse(
    program: str,
    groups: tuple,
    argv: list[str] | None,
    positional: str | None = None,
    many: str | None = None,
) -> argparse.Namespace:
    """Parse `argv` (default: the command line) with the flags of `groups`.

    Args:
        program: What the program does.
        groups: Title and flags of each group.
        argv: The words.
        positional: Name of a flag whose value may also stand first, without the flag.
        many: Name of the values without a flag, of which at least one is needed.
    """
    parser = Parser(description=program, allow_abbrev=False)
    if positional:
        parser.add_argument("PATH", nargs="?", help=f"the same as --{positional}")
    if many:
        parser.add_argument(many, nargs="+", metavar="RUN", help="folder of a run, or one that holds runs")
    for title, flags in groups:
        group = parser.add_argument_group(title)
        for flag in flags:
            flag.add_to(group)
    argv = sys.argv[1:] if argv is None else argv
    options = parser.parse_args(argv)
    # A flag that is given wins over recipe and resumed run, also where it repeats the default.
    options.given = {word[2:].split("=")[0] for word in argv if word.startswith("--")}
    if positional and options.PATH is not None:
        if positional in options.given:
            raise UserError(f"{options.PATH} and --{positional} are given; one of them is enough")
        setattr(options, positional, options.PATH)
    return options


def need_weights(options: argparse.Namespace) -> argparse.Namespace:
    """Return `options` if a checkpoint was named."""
    if not options.WEIGHTS:
        raise UserError(
            "--WEIGHTS is missing; give a checkpoint, e.g. --WEIGHTS pth_files/unet_resnet50/best.pth"
        )
    return options


def plain_options(options: argparse.Namespace) -> dict:
    """Return the flags as plain values for JSON and checkpoints."""
    values = {name: value for name, value in vars(options).items() if name.isupper()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def train_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags of train.py, on top of those of the run that --CONFIG names."""
    about, argv = ("Train a network.", TRAIN), sys.argv[1:] if argv is None else argv
    options = parse(*about, argv)
    if options.CONFIG is None:
        return options
    if options.RESUME is not None:
        raise UserError("--CONFIG and --RESUME are given; a resumed run has its own flags: leave one out")
    defaults = plain_options(parse(*about, []))
    words = config_words(options.CONFIG, defaults, options.given)
    try:
        parse(*about, words)
    except UserError as mistake:
        raise UserError(f"--CONFIG {options.CONFIG}: {mistake}") from mistake
    return parse(*about, [*words, *argv])


def evaluate_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags of evaluate.py."""
    options = parse("Measure a trained network on a labelled split.", (EVALUATION, SHARING, PREDICTING), argv)
    if not options.PREDICTIONS:
        return need_weights(options)
    # Class maps are compared one by one, and no network runs.
    options.USE_CPU, options.BATCH_SIZE = True, None
    return options


def predict_small_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags of predict_small.py."""
    return need_weights(parse("Predict images that fit in memory.", (PREDICTION, PREDICTING), argv))


def predict_large_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags of predict_large.py."""
    groups = (PREDICTION, WINDOWS, SCENES, SHARING, PREDICTING)
    return need_weights(parse("Predict scenes of any size.", groups, argv))


def export_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags of export.py."""
    return need_weights(parse("Write a trained network for other programs.", (EXPORT,), argv))


def structure_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags of Structure.py."""
    options = parse("Show a trained network, or what can be built.", (STRUCTURE,), argv)
    return options if options.LIST else need_weights(options)


def compare_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the flags of compare.py."""
    return parse("Compare runs.", (COMPARISON,), argv, many="RUNS")
