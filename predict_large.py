"""Predict scenes of any size by overlapping windows: maps, overlays and, if asked, scores and polygons."""

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
    from utils.data.band_choice import TrainedBands
    from utils.data.labels import Classes
    from utils.data.loaders import default_workers
    from utils.devices import check_batch, choose_devices, describe, place
    from utils.inference.class_map import ClassTotals
    from utils.inference.inputs import collect_jobs
    from utils.inference.memory import BackingOff
    from utils.inference.messages import conclusion, introduction
    from utils.inference.results import forget, hint_at_resume
    from utils.inference.scenes import GDAL_CACHE_MB, memory_estimate, plan, predict_scene
    from utils.inference.whole import predictor

    devices = choose_devices(options)
    check_batch(options.BATCH_SIZE, len(devices))
    network = load_network(options.WEIGHTS)
    classes = Classes.from_dict(network.about["classes"])
    bands = TrainedBands.of(network)
    work = collect_jobs(options.INPUT, options.OUTPUT, bands, options.EXTRA_IMAGES)
    windows, results = plan(options, tuple(network.about["crop_size"]))
    print(introduction(bands, classes, describe(devices), work, options.TTA))
    memory = max(memory_estimate(job.info, classes, windows, results) for job in work.jobs)
    print(
        f"window:  {windows.window[0]} x {windows.window[1]} pixels, overlap {options.OVERLAP:g}, "
        f"blending {options.BLEND}\nmemory:  about {memory / 2**20:.0f} MiB besides the network"
    )

    threads = default_workers(devices[0].type) if options.NUM_WORKERS is None else options.NUM_WORKERS
    network = place(network, devices)
    predict = BackingOff(predictor(network, devices[0], options.TTA or ()), tqdm.write, len(devices))
    totals = ClassTotals(classes)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB), hint_at_resume(work):
        for job in work.jobs:
            bar = tqdm(total=len(windows.grid(job.info)), desc=job.name, unit="window")
            with bar, work.attempt(job, bar.write):
                more = {"threads": threads, "progress": bar.update}
                totals.merge(predict_scene(job, predict, classes, windows, results, **more))
    forget(work)
    if work.done:
        print(conclusion(totals, work.done, Path(options.OUTPUT)))
    work.raise_failures(Path(options.OUTPUT))


if __name__ == "__main__":
    sys.exit(run_program(main))
