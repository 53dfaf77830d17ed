"""What evaluate.py judges: a network, or class maps that are on the disk already."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from nets.errors import UserError
from utils.data.band_choice import TrainedBands
from utils.data.dataset import SegmentationDataset
from utils.data.labels import Classes
from utils.data.layout import DatasetInfo, scan_dataset
from utils.data.loaders import default_workers, evaluation_loader
from utils.data.samples import Sample, evaluation_samples
from utils.devices import batch_of_each, describe
from utils.distributed import count, rank
from utils.evaluation.evaluate import evaluate_network
from utils.evaluation.files import Each, evaluate_files, find_maps, read_map
from utils.evaluation.gathering import whole_split
from utils.evaluation.metrics import ConfusionMatrix, Metrics
from utils.evaluation.split import open_split, reading_as_trained
from utils.inference.classify import Classify, ClassifyParts
from utils.inference.messages import passes_line
from utils.inference.whole import predictor
from utils.inference.windows import to_images

Progress = Callable[[Iterable], Iterable]


@dataclass(frozen=True)
class Subject:
    """What is judged.

    Attributes:
        dataset: the labelled split.
        images: its images with masks.
        scenes: name of an image -> name of the scene of which it is a block, its own if it is none.
        source: where the class ids come from, in words.
        score: (each, progress) -> confusion matrix, scores of each image, and pixels that are left out;
            `each` is called with this process's share of the images.
        classify: item of `images` -> class ids (H, W), or of several labels (K, H, W) of 0 and 1.
        beside: folder where results stand by default.
    """

    dataset: DatasetInfo
    images: SegmentationDataset
    scenes: dict[str, str]
    source: str
    score: Callable[[Each, Progress], tuple[ConfusionMatrix, list[Metrics], int]]
    classify: Callable[[dict], np.ndarray]
    beside: Path


def open_subject(
    options: argparse.Namespace, load_network: Callable[[str], nn.Module], device: torch.device
) -> Subject:
    """Return what the flags name: --WEIGHTS, which `load_network` opens, or --PREDICTIONS."""
    if options.WEIGHTS and options.PREDICTIONS:
        raise UserError(
            "--WEIGHTS and --PREDICTIONS are given; either a network or maps are judged: leave one out"
        )
    return _maps(options) if options.PREDICTIONS else _network(options, load_network, device)


def _network(
    options: argparse.Namespace, load_network: Callable[[str], nn.Module], device: torch.device
) -> Subject:
    batch_size = batch_of_each(options.BATCH_SIZE, count(), "processes")
    network = load_network(options.WEIGHTS)
    classes = Classes.from_dict(network.about["classes"])
    if options.TASK not in (None, network.task):
        raise UserError(
            f"--TASK {options.TASK} is given, {options.WEIGHTS} is for {network.task}; leave --TASK out"
        )
    reading = reading_as_trained(options, network.about.get("options", {}))
    dataset = open_split(options.DATASET_PATH, options.SPLIT, classes, TrainedBands.of(network), reading)
    classes = dataset.classes
    split = dataset.splits[options.SPLIT]
    images = SegmentationDataset(evaluation_samples(split), classes)
    workers = default_workers(device.type, count()) if options.NUM_WORKERS is None else options.NUM_WORKERS
    pinned = device.type == "cuda"
    loader = evaluation_loader(images, batch_size, workers, pin_memory=pinned, share=(rank(), count()))
    network = network.to(device)
    predict = predictor(network, device, options.TTA or ())
    windows = {"window": options.WINDOW, "overlap": options.OVERLAP, "blend": options.BLEND}
    whole = Classify(predict, classes.num_classes, batch_size=batch_size, task=network.task, **windows)
    classify = _with_parts(whole, network, images)
    # The plain way shares its arithmetic with the validation of training.
    way = classify if options.TTA or options.WINDOW or classify.samples else None

    def score(each: Each, progress: Progress) -> tuple[ConfusionMatrix, list[Metrics], int]:
        matrix, _, scores = evaluate_network(
            network, loader, device, progress=progress, classify=way, each=each
        )
        mine = (index for batch in loader.batch_sampler for index in batch)
        return whole_split(matrix, dict(zip(mine, scores, strict=True)))

    def one(item: dict) -> np.ndarray:
        with torch.inference_mode():
            image = to_images(item["image"], item["valid"])
            return classify(image[None], [item["name"]])[0].cpu().numpy()

    lines = [describe([device], count()), *passes_line(options.TTA)]
    if classify.samples:
        height, width = classify.parts.window
        lines.append(
            f"window:  {height} x {width} pixels, overlap {options.OVERLAP:g}, blending {options.BLEND}: "
            "blocks of scenes are predicted as predict_large.py predicts the scene"
        )
    source = "\n".join(lines)
    return Subject(dataset, images, _scenes(split), source, score, one, Path(options.WEIGHTS).parent)


def _with_parts(whole: Classify, network: nn.Module, images: SegmentationDataset) -> ClassifyParts:
    """Return how images are predicted, and by which windows blocks of scenes: those of predict_large.py."""
    parts = {sample.name: sample for sample in images.samples if sample.window is not None}
    if not parts:
        return ClassifyParts(whole, whole, parts, (0, 0))
    crop = tuple(network.about["crop_size"])
    window = (whole.window, whole.window) if whole.window else crop
    least = (min(window[0], crop[0]), min(window[1], crop[1]))
    return ClassifyParts(whole, replace(whole, window=window), parts, least)


def _maps(options: argparse.Namespace) -> Subject:
    folder = Path(options.PREDICTIONS)
    if not folder.is_dir():
        raise UserError(f"--PREDICTIONS {folder} is no folder; give the --OUTPUT of a predict program")
    reading = reading_as_trained(options, {})
    dataset = scan_dataset(options.DATASET_PATH, splits=(options.SPLIT,), reading=reading)
    split, classes = dataset.splits[options.SPLIT], dataset.classes
    maps = find_maps(folder, [sample.name for sample in split])
    images = SegmentationDataset(evaluation_samples(split), classes)
    samples = {sample.name: sample for sample in images.samples}
    scenes = _scenes(split)
    maps = {block: maps[scene] for block, scene in scenes.items()}  # the blocks of a scene lie in one map

    def score(each: Each, progress: Progress) -> tuple[ConfusionMatrix, list[Metrics], int]:
        mine = range(rank(), len(images), count())
        matrix, scores, left_out = evaluate_files(maps, images, each, progress, mine)
        return whole_split(matrix, dict(zip(mine, scores, strict=True)), left_out)

    def one(item: dict) -> np.ndarray:
        return read_map(maps[item["name"]], classes, samples[item["name"]])

    return Subject(
        dataset, images, scenes, f"none, the class maps in {folder} are judged", score, one, folder
    )


def _scenes(split: Sequence[Sample]) -> dict[str, str]:
    return {block.name: sample.name for sample in split for block in evaluation_samples([sample])}
