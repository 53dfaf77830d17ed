"""report.html: everything about a run on one page that needs nothing but itself."""

import json
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nets import create_model
from utils.checkpoint import read_checkpoint
from utils.data.bands import rgb_bands
from utils.data.labels import IGNORE
from utils.devices import describe
from utils.evaluation.html import facts, folded, page, picture, table, write_page
from utils.evaluation.metrics import OVERALL, PER_CLASS
from utils.evaluation.overlays import preview, side_by_side
from utils.inference.classify import Classify
from utils.inference.whole import predictor
from utils.inference.windows import to_images

if TYPE_CHECKING:
    from utils.training.session import Session

SHOWN = 3  # best and worst images each


def write_report(session: "Session") -> Path:
    """Write report.html of a run that has been validated at least once, and return its path."""
    folder = session.folder
    best = read_checkpoint(folder / "best.pth")
    written = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    sheets = sorted((folder / "samples").glob("*.png"))
    sections = [
        ("", facts(_facts(session, best))),
        ("Curves", picture(session.log.curves, alt="losses, scores and learning rate")),
        (f"Classes at {session.unit} {best[session.unit]}, the best", _classes(session, best["metrics"])),
        ("Confusion matrix", picture(folder / "confusion.png", alt="confusion matrix")),
        *best_and_worst(session, best),
        (
            f"The same images after {session.unit} {session.mark}",
            picture(sheets[-1], alt="image, truth and prediction") if sheets else "",
        ),
        ("Decisions", _decisions(written)),
        ("Environment", table([["", ""], *environment(session)], flush_left=2)),
        ("Log", folded("all rows", _log(session.log.rows))),
    ]
    path = folder / "report.html"
    about = f"{session.family} on {session.options.DATASET_PATH}"
    write_page(path, page(folder.name, about, sections))
    return path


def environment(session: "Session") -> list[tuple[str, str]]:
    """Return what the run was computed with, and by which command."""
    return [
        ("command", " ".join(["python", *sys.argv])),
        ("device", describe([session.device])),
        ("system", platform.platform()),
        ("python", platform.python_version()),
        ("torch", str(torch.__version__)),
        ("numpy", np.__version__),
    ]


def best_and_worst(session: "Session", best: dict) -> list[tuple[str, str]]:
    """Return headings and pictures of the images with the highest and the lowest mIoU at the best epoch."""
    scores = sorted(session.best_scores, key=lambda pair: pair[1])
    if not scores:
        return []
    shown = min(SHOWN, max(1, len(scores) // 2))
    with tempfile.TemporaryDirectory() as scratch:
        draw = _drawer(session, best, Path(scratch))
        parts = {"Best images": scores[::-1][:shown], "Worst images": scores[:shown]}
        return [(heading, "".join(draw(pairs))) for heading, pairs in parts.items()]


def _drawer(session: "Session", best: dict, scratch: Path):
    """Return a function that draws (name, mIoU) pairs with the predictions of the best epoch."""
    network = create_model(best["blueprint"]["name"], **best["blueprint"]["options"])
    network.load_state_dict(best["state_dict"])
    network = network.to(session.device).eval()
    dataset, options = session.val_loader.dataset, session.options
    classify = Classify(
        predictor(network, session.device),
        network.num_classes,
        window=options.VAL_WINDOW,
        batch_size=options.BATCH_SIZE,
        task=network.task,
    )
    places = {sample.name: index for index, sample in enumerate(dataset.samples)}

    def draw(pairs: Sequence[tuple[str, float]]) -> Iterator[str]:
        for name, score in pairs:
            item = dataset[places[name]]
            image, valid = item["image"], item["valid"]
            with torch.inference_mode():
                ids = classify(to_images(image, valid)[None])[0].cpu().numpy()
            shown = preview(image, valid, rgb_bands(len(image), session.data.band_names))
            path = scratch / f"{places[name]}.png"
            ids = np.where(valid, ids, IGNORE)
            side_by_side(shown, item["mask"], ids, session.data.classes, path, largest=512)
            yield picture(path, f"{name}: mIoU {score:.4f}")

    return draw


def _facts(session: "Session", best: dict) -> list[tuple[str, object]]:
    metrics, rows = best["metrics"], session.log.rows
    parameters = sum(parameter.numel() for parameter in session.validated.parameters())
    hours = sum(row["seconds"] for row in rows) / 3600
    return [
        ("best mIoU", f"{metrics['mIoU']:.4f}"),
        ("accuracy", f"{metrics['Acc']:.4f}"),
        (f"best {session.unit}", best[session.unit]),
        (f"{session.unit}s done", session.mark),
        ("parameters", f"{parameters / 1e6:.2f} M"),
        ("time", f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"),
    ]


def _classes(session: "Session", metrics: dict) -> str:
    names = session.data.classes.names
    scores = [metrics["per_class"][score] for score in PER_CLASS]
    rows = [[name, *values] for name, *values in zip(names, *scores, metrics["pixels"], strict=True)]
    overall = table([OVERALL, [metrics[name] for name in OVERALL]], flush_left=0)
    return table([["class", *PER_CLASS, "pixels"], *rows]) + "<p></p>" + overall


def _decisions(written: dict) -> str:
    decisions = [[name, entry["value"], entry["reason"]] for name, entry in written["decisions"].items()]
    flags = [[f"--{name}", "" if value is None else value] for name, value in written["flags"].items()]
    head = ["group", "tensors", "parameters", "lr", "weight_decay"]
    groups = [[group[name] for name in head] for group in written["parameter_groups"]]
    groups = [[*row[:3], *(f"{value:g}" for value in row[3:])] for row in groups]
    return (
        table([["", "value", "reason"], *decisions], flush_left=3)
        + folded("parameter groups", table([head, *groups]))
        + folded("all flags", table([["flag", "value"], *flags], flush_left=2))
    )


def _log(rows: Sequence[dict]) -> str:
    names = [name for name in rows[0] if not name.startswith(tuple(f"{score}_" for score in PER_CLASS))]
    return table([names, *([row[name] for name in names] for row in rows)], flush_left=0)
