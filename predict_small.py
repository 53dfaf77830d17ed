"""Predict images that fit in memory, whole: class maps, overlays and, if asked, probabilities."""

import sys

from utils.options import predict_small_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> None:
    """Predict every image of --INPUT into --OUTPUT."""
    options = predict_small_options(argv)
    # Heavy imports come after the flags, so that --help and a mistyped flag answer at once.
    from pathlib import Path

    from tqdm import tqdm

    from Structure import load_network
    from utils.data.labels import Classes
    from utils.devices import choose_devices, describe, place
    from utils.inference.class_map import ClassTotals
    from utils.inference.images import predict_image
    from utils.inference.inputs import collect_jobs
    from utils.inference.messages import conclusion, introduction

    devices = choose_devices(options)[:1]  # one image at a time has no use for more
    network = load_network(options.WEIGHTS)
    classes = Classes.from_dict(network.about["classes"])
    work = collect_jobs(options.INPUT, options.OUTPUT, network.bands)
    network = place(network, devices)
    print(introduction(network, classes, describe(devices), work))

    totals = ClassTotals(classes)
    bar = tqdm(work.jobs, desc="predict", unit="image")
    for job in bar:
        with work.attempt(job, bar.write):
            totals.merge(predict_image(job, network, devices[0], classes, scores=options.SCORES))
    if work.done:
        print(conclusion(totals, work.done, Path(options.OUTPUT)))
    work.raise_failures(Path(options.OUTPUT))


if __name__ == "__main__":
    sys.exit(run_program(main))
