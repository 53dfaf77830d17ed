"""Measure a trained network on a labelled split: scores, confusion matrix, pictures of the worst images.

python evaluate.py --WEIGHTS pth_files/unet_resnet50/best.pth --DATASET_PATH datasets/demo --SPLIT test
python evaluate.py --PREDICTIONS output --DATASET_PATH datasets/demo --SPLIT test
"""

import argparse
import sys
from pathlib import Path

from utils.options import evaluate_options
from utils.program import run_program


def main(argv: list[str] | None = None) -> int:
    """Evaluate as the flags in `argv` say (default: the command line) and return the exit code."""
    options = evaluate_options(argv)
    # Heavy imports come after the flags, so that --help and a mistyped flag answer at once.
    from utils.launch import launch, processes_to_start

    processes = processes_to_start(options)
    if processes > 1:
        return launch(processes, Path(__file__).resolve(), argv)
    evaluate(options)
    return 0


def evaluate(options: argparse.Namespace) -> None:
    """Evaluate in this process, one of several maybe, and write the results to --OUTPUT."""
    from functools import partial

    from tqdm import tqdm

    from Structure import load_network
    from utils.distributed import first_before_the_others, join, leads, leave
    from utils.evaluation.boundary import BoundaryIoU
    from utils.evaluation.gathering import SceneScores, add_up_boundary
    from utils.evaluation.report import table
    from utils.evaluation.split import (
        draw_worst,
        introduction,
        output_folder,
        overlay_writer,
        write_results,
    )
    from utils.evaluation.subject import open_subject

    device = join(options)
    with first_before_the_others():
        subject = open_subject(options, load_network, device)
    output = output_folder(options.OUTPUT, subject.beside, options.SPLIT)
    dataset, images = subject.dataset, subject.images
    print(introduction(dataset, options.SPLIT, subject.source))

    classes, bands = images.classes, dataset.band_names
    boundary = BoundaryIoU(classes.num_classes)
    scenes = SceneScores(subject.scenes, classes.num_classes, classes.task)
    draw = overlay_writer(Path(options.SHOW_DIR), classes, bands) if options.SHOW_DIR else None

    def each(batch, predictions, masks) -> None:
        boundary.update(predictions, masks)
        scenes.update(batch["name"], predictions, masks)
        if draw:
            draw(batch, predictions)

    progress = partial(tqdm, desc=f"evaluate {options.SPLIT}", leave=False)
    confusion, scores, left_out = subject.score(each, progress)
    add_up_boundary(boundary)
    per_scene = scenes.compute()
    if leads():
        print(f"\n{table(confusion.compute(), classes.names, boundary)}\n")
        if left_out:
            print(f"{left_out} labelled pixels have no prediction and are not counted\n")
        write_results(output, confusion, images, scores, boundary, per_scene)
        pictures = draw_worst(output, subject.classify, images, scores, options.WORST, bands)
        worst = sum(1 for _ in pictures)
        print(f"tables, confusion matrix and pictures of the {worst} worst images are in {output}")
    leave()


if __name__ == "__main__":
    sys.exit(run_program(main))
