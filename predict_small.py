"""Predict images that fit in memory, whole: class maps, overlays and, if asked, probabilities."""

import sys

from utils.options import predict_small_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> None:
    """Predict every image of --INPUT into --OUTPUT."""
    options = predict_small_options(argv)
    # Heavy imports come after the flags, so that --help and a mistyped flag answer at once.
    from functools import partial
    from pathlib import Path

    from tqdm import tqdm

    from Structure import load_network
    from utils.data.band_choice import TrainedBands
    from utils.data.labels import Classes
    from utils.data.loaders import default_workers
    from utils.devices import choose_devices, describe, place_for_prediction
    from utils.inference.ahead import ahead, attempted
    from utils.inference.class_map import ClassTotals
    from utils.inference.images import predict_image, read_job
    from utils.inference.inputs import collect_jobs
    from utils.inference.messages import conclusion, introduction
    from utils.inference.scores import Scores
    from utils.inference.whole import predictor

    device = choose_devices(options)[0]  # one image at a time has no use for more
    network = load_network(options.WEIGHTS)
    classes = Classes.from_dict(network.about["classes"])
    bands = TrainedBands.of(network)
    work = collect_jobs(options.INPUT, options.OUTPUT, bands, options.EXTRA_IMAGES)
    predict = predictor(place_for_prediction(network, device), device, options.TTA or ())
    print(introduction(bands, classes, describe([device]), work, options.TTA))

    threads = default_workers(device.type) if options.NUM_WORKERS is None else options.NUM_WORKERS
    scores = [Scores(*words, classes.task) for words in options.SCORES or ()]
    totals = ClassTotals(classes)
    bar = tqdm(work.jobs, desc="predict", unit="image")
    for job, read in zip(bar, ahead(partial(attempted, read_job), work.jobs, threads), strict=True):
        with work.attempt(job, bar.write):
            totals.merge(predict_image(job, *read(), predict, classes, scores))
    if work.done:
        print(conclusion(totals, work.done, Path(options.OUTPUT)))
    work.raise_failures(Path(options.OUTPUT))


if __name__ == "__main__":
    sys.exit(run_program(main))
