"""Predict scenes of any size by overlapping windows: maps, overlays and, if asked, scores and polygons."""

import argparse
import sys
from pathlib import Path

from utils.options import predict_large_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> int:
    """Predict every scene of --INPUT into --OUTPUT and return the exit code."""
    options = predict_large_options(argv)
    # Heavy imports come after the flags, so that --help and a mistyped flag answer at once.
    from utils.launch import launch, processes_to_start

    processes = processes_to_start(options)
    if processes > 1:
        code = launch(processes, Path(__file__).resolve(), argv)
        if code == 130:  # Ctrl-C; the processes themselves were ended before they could say it
            print("stopped; the same command with --RESUME goes on from here")
        return code
    predict(options)
    return 0


def predict(options: argparse.Namespace) -> None:
    """Predict in this process, which may be one of several."""
    import rasterio
    from tqdm import tqdm

    from Structure import load_network
    from utils.data.band_choice import TrainedBands
    from utils.data.labels import Classes
    from utils.data.loaders import default_workers
    from utils.devices import batch_of_each, describe, place_for_prediction
    from utils.distributed import count, join, leads, leave
    from utils.inference.inputs import collect_jobs
    from utils.inference.memory import BackingOff
    from utils.inference.messages import conclusion, introduction
    from utils.inference.results import forget, hint_at_resume
    from utils.inference.scenes import GDAL_CACHE_MB, memory_estimate, plan
    from utils.inference.sharing import ScenePredictor, predict_all
    from utils.inference.whole import predictor

    device = join(options)
    batch_size = batch_of_each(options.BATCH_SIZE, count(), "processes")
    network = load_network(options.WEIGHTS)
    classes = Classes.from_dict(network.about["classes"])
    bands = TrainedBands.of(network)
    work = collect_jobs(options.INPUT, options.OUTPUT, bands, options.EXTRA_IMAGES)
    crop = tuple(network.about["crop_size"])
    windows, results = plan(options, crop, batch_size, classes.task)
    print(introduction(bands, classes, describe([device], count()), work, options.TTA))
    memory = max(memory_estimate(job.info, classes, windows, results) for job in work.jobs)
    print(
        f"window:  {windows.window[0]} x {windows.window[1]} pixels, overlap {options.OVERLAP:g}, "
        f"blending {options.BLEND}\nmemory:  about {memory / 2**20:.0f} MiB besides the network"
        + (", in each process" if count() > 1 else "")
    )

    threads = default_workers(device.type, count()) if options.NUM_WORKERS is None else options.NUM_WORKERS
    network = place_for_prediction(network, device)
    careful = BackingOff(predictor(network, device, options.TTA or ()), tqdm.write)
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB), hint_at_resume(work):
        totals = predict_all(work, ScenePredictor(careful, classes, windows, results, threads))
    if leads():
        forget(work)
    leave()
    if work.done:
        print(conclusion(totals, work.done, Path(options.OUTPUT)))
    work.raise_failures(Path(options.OUTPUT))


if __name__ == "__main__":
    sys.exit(run_program(main))
