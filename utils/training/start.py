"""The start of a new run: its weights, the statistics of its bands and the normalisation that follows."""

import argparse
from pathlib import Path

import numpy as np
from torch import nn

from nets.errors import UserError
from utils.data.layout import DatasetInfo
from utils.data.scaling import parse_scaling
from utils.data.source import read_source
from utils.data.statistics import BandStatistics, cached_statistics, measure_bands
from utils.data.window import Window
from utils.distributed import first_before_the_others
from utils.training import announce
from utils.training.announce import say
from utils.training.setup import choose_normalization, load_start

# Images that are read to name the bands without a number.
_LOOKED_AT = 8


def start_weights(options: argparse.Namespace, network: nn.Module, data: DatasetInfo, folder: Path) -> dict:
    """Load the start of a new run, set its normalisation and return what checkpoints say of the bands."""
    start = load_start(options, network, data.band_names)
    # A range test leaves nothing but its table and picture.
    cache = None if options.LR_FIND else folder / "statistics.json"
    with first_before_the_others():
        statistics = band_statistics(options, data, cache)
    source = choose_normalization(options, network, statistics, start)
    say(*announce.bands_table(data, statistics), "", f"start: {start.text}", *_listed(start.left_out))
    return describe_bands(data, statistics, source)


def band_statistics(options: argparse.Namespace, data: DatasetInfo, cache: Path | None) -> BandStatistics:
    """Return the statistics of the training images, kept in the file `cache` if it is given.

    Raises:
        UserError: no pixel is valid.
    """
    train, scaling = data.splits["train"], parse_scaling(options.SCALING)

    def measure() -> BandStatistics:
        found = measure_bands(train, scaling, seed=options.SEED)
        require_valid_pixels(data, found)
        return found

    if cache is None:
        return measure()
    return cached_statistics(cache, train, measure, f"{scaling.text}, seed {options.SEED}")


def require_valid_pixels(data: DatasetInfo, statistics: BandStatistics) -> None:
    """Refuse training images without a single valid pixel, as with a band that is NaN throughout.

    Nothing could be learnt from them, and the loss would be 0.

    Raises:
        UserError: there is none; bands without any number are named.
    """
    if statistics.valid_pixels or statistics.read_pixels < statistics.pixels:
        return
    train = data.splits["train"]
    numbers = np.zeros(data.bands, bool)
    for sample in train[:_LOOKED_AT]:
        image, _ = read_source(sample.source, sample.inside(Window(0, 0, sample.height, sample.width)))
        numbers |= np.isfinite(image).reshape(data.bands, -1).any(axis=1)
    empty = [f"{i + 1} ({name})" for i, name in enumerate(data.band_names) if not numbers[i]]
    why = "each is no-data, NaN or infinite in some band; python tools/check_dataset.py names the files"
    if empty:
        which = f"bands {', '.join(empty)}" if len(empty) > 1 else f"band {empty[0]}"
        why = f"no number is in {which} of {data.bands}; choose others by --BAND_INDEX"
    raise UserError(f"none of the {statistics.pixels} pixels of the training images is valid: {why}")


def describe_bands(data: DatasetInfo, statistics: BandStatistics, source: str) -> dict:
    """Return what a checkpoint says of the bands, in plain values.

    Args:
        data: the checked data set.
        statistics: of its training images.
        source: "data", or "checkpoint" where the normalisation is that of the file the run starts from.
    """
    scaling = statistics.scaling.text if source == "data" else "as in --PRETRAIN_MODEL"
    return {
        "names": list(data.band_names),
        **data.sources.to_dict(),
        "dtype": data.dtype,
        "scaling": f"{scaling} ({source})",
        "minimum": list(statistics.minimum),
        "maximum": list(statistics.maximum),
        "measured": statistics.share or "on all pixels",
    }


def _listed(left_out: tuple[str, ...], most: int = 20) -> list[str]:
    lines = [f"  not loaded: {line}" for line in left_out[:most]]
    if len(left_out) > most:
        lines.append(f"  ... and {len(left_out) - most} more")
    return lines
