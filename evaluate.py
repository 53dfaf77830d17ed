"""Measure a trained network on a labelled split: scores, confusion matrix, pictures of the worst images.

python evaluate.py --WEIGHTS pth_files/unet_resnet50/best.pth --DATASET_PATH datasets/demo --SPLIT test
python evaluate.py --PREDICTIONS output --DATASET_PATH datasets/demo --SPLIT test
"""

import sys

from utils.options import evaluate_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> int:
    """Evaluate --WEIGHTS or --PREDICTIONS on --SPLIT of --DATASET_PATH and write the results to --OUTPUT."""
    options = evaluate_options(argv)
    # Heavy imports come after the flags, so that --help and a mistyped flag answer at once.
    from functools import partial
    from pathlib import Path

    from tqdm import tqdm

    from Structure import load_network
    from utils.evaluation.boundary import BoundaryIoU
    from utils.evaluation.report import table
    from utils.evaluation.split import (
        draw_worst,
        introduction,
        output_folder,
        overlay_writer,
        write_results,
    )
    from utils.evaluation.subject import open_subject

    subject = open_subject(options, load_network)
    output = output_folder(options.OUTPUT, subject.beside, options.SPLIT)
    dataset, images = subject.dataset, subject.images
    print(introduction(dataset, options.SPLIT, subject.source))

    classes, bands = images.classes, dataset.band_names
    boundary = BoundaryIoU(classes.num_classes)
    draw = overlay_writer(Path(options.SHOW_DIR), classes, bands) if options.SHOW_DIR else None

    def each(batch, predictions, masks) -> None:
        boundary.update(predictions, masks)
        if draw:
            draw(batch, predictions)

    progress = partial(tqdm, desc=f"evaluate {options.SPLIT}", leave=False)
    confusion, scores, left_out = subject.score(each, progress)
    print(f"\n{table(confusion.compute(), classes.names, boundary)}\n")
    if left_out:
        print(f"{left_out} labelled pixels have no prediction and are not counted\n")

    write_results(output, confusion, images, scores, boundary)
    pictures = draw_worst(output, subject.classify, images, scores, options.WORST, bands)
    worst = sum(1 for _ in pictures)
    print(f"tables, confusion matrix and pictures of the {worst} worst images are in {output}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
