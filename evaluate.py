"""Measure a trained network on a labelled split: scores, confusion matrix, pictures of the worst images.

python evaluate.py --WEIGHTS pth_files/unet_resnet50/best.pth --DATASET_PATH datasets/demo --SPLIT test
"""

import sys

from utils.options import evaluate_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> int:
    """Evaluate --WEIGHTS on --SPLIT of --DATASET_PATH and write the results into --OUTPUT."""
    options = evaluate_options(argv)
    # Heavy imports come after the flags, so that --help and a mistyped flag answer at once.
    from functools import partial

    from tqdm import tqdm

    from Structure import load_network
    from utils.data.dataset import SegmentationDataset, default_workers, evaluation_loader
    from utils.data.labels import Classes
    from utils.data.samples import evaluation_samples
    from utils.devices import check_batch, choose_devices, describe, place
    from utils.evaluation.evaluate import evaluate_network
    from utils.evaluation.report import table
    from utils.evaluation.split import (
        draw_worst,
        introduction,
        open_split,
        output_folder,
        reading_as_trained,
        write_results,
    )

    devices = choose_devices(options)
    check_batch(options.BATCH_SIZE, devices)
    output = output_folder(options.OUTPUT, options.WEIGHTS, options.SPLIT)
    network = load_network(options.WEIGHTS)
    classes = Classes.from_dict(network.about["classes"])
    band_names = network.about.get("bands", {}).get("names") or ()
    reading = reading_as_trained(options, network.about.get("options", {}))
    dataset = open_split(
        options.DATASET_PATH, options.SPLIT, classes, network.bands, band_names, reading=reading
    )
    classes = dataset.classes
    print(introduction(dataset, options.SPLIT, describe(devices)))

    images = SegmentationDataset(evaluation_samples(dataset.splits[options.SPLIT]), classes)
    gpu = devices[0].type == "cuda"
    workers = default_workers(devices[0].type) if options.NUM_WORKERS is None else options.NUM_WORKERS
    loader = evaluation_loader(images, options.BATCH_SIZE, workers, pin_memory=gpu)
    network = place(network, devices)
    progress = partial(tqdm, desc=f"evaluate {options.SPLIT}", unit="batch", leave=False)
    confusion, _, scores = evaluate_network(network, loader, devices[0], progress=progress)
    print(f"\n{table(confusion.compute(), classes.names)}\n")

    write_results(output, confusion, images, scores)
    pictures = draw_worst(output, network, devices[0], images, scores, options.WORST, dataset.band_names)
    worst = sum(1 for _ in pictures)
    print(f"tables, confusion matrix and pictures of the {worst} worst images are in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
