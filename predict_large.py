"""Predict scenes of any size by overlapping windows: maps, small overlays and, if asked, probabilities."""

import sys

from utils.options import predict_large_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> None:
    """Predict every scene of --INPUT into --OUTPUT."""
    options = predict_large_options(argv)
    # Heavy imports come after the flags, so that --help and a mistyped flag answer at once.
    from pathlib import Path

    import rasterio
    from tqdm import tqdm

    from Structure import load_network
    from utils.data.labels import Classes
    from utils.devices import check_batch, choose_devices, describe, place
    from utils.inference.class_map import ClassTotals
    from utils.inference.inputs import collect_jobs
    from utils.inference.messages import conclusion, introduction
    from utils.inference.scenes import GDAL_CACHE_MB, WindowOptions, memory_estimate, predict_scene
    from utils.inference.whole import predictor

    devices = choose_devices(options)
    check_batch(options.BATCH_SIZE, devices)
    network = load_network(options.WEIGHTS)
    classes = Classes.from_dict(network.about["classes"])
    work = collect_jobs(options.INPUT, options.OUTPUT, network.bands)
    window = (options.WINDOW, options.WINDOW) if options.WINDOW else tuple(network.about["crop_size"])
    windows = WindowOptions(window, options.OVERLAP, options.BATCH_SIZE)
    print(introduction(network, classes, describe(devices), work))
    memory = max(memory_estimate(job.info, classes, windows, options.SCORES) for job in work.jobs)
    print(
        f"window:  {window[0]} x {window[1]} pixels, overlap {options.OVERLAP:g}\n"
        f"memory:  about {memory / 2**20:.0f} MiB besides the network"
    )

    predict = predictor(place(network, devices), devices[0])
    totals = ClassTotals(classes)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB):
        for job in work.jobs:
            count = len(windows.grid(job.info))
            bar = tqdm(total=count, desc=job.info.path.name, unit="window")
            with bar, work.attempt(job, bar.write):
                more = {"scores": options.SCORES, "progress": bar.update}
                totals.merge(predict_scene(job, predict, classes, windows, **more))
    if work.done:
        print(conclusion(totals, work.done, Path(options.OUTPUT)))
    work.raise_failures(Path(options.OUTPUT))


if __name__ == "__main__":
    sys.exit(run_program(main))
