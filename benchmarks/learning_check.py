"""Does every network learn? Each family fits a few images as well as its own output grid allows.

    python benchmarks/learning_check.py --DATASET_PATH data/camvid-small

The smallest variant of each family is trained by its plain recipe on 16 whole images, without augmentation,
in batches of 4, and has to reach 90 % of a ceiling within 1,500 steps. The ceiling is the mIoU on these
images of logits that are free numbers on the network's output grid, fitted with the same resize and loss.
Where 1,500 steps would take more than 20 minutes, 4 images are taken, which are learnt in fewer steps.
Finished families are kept in benchmarks/results/ and not repeated.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.common import RESULTS, add_row, count_parameters, read_rows, surroundings  # noqa: E402
from nets.layers.resize import resize  # noqa: E402
from nets.registry import find_model, list_models  # noqa: E402
from nets.segmentation_model import SegmentationNetwork  # noqa: E402
from utils.data.dataset import SegmentationDataset, TrainingSampler, collate, to_device  # noqa: E402
from utils.data.layout import DatasetInfo, scan_dataset  # noqa: E402
from utils.devices import choose_devices  # noqa: E402
from utils.evaluation.evaluate import evaluate_network  # noqa: E402
from utils.evaluation.metrics import ConfusionMatrix  # noqa: E402
from utils.flag_types import number  # noqa: E402
from utils.options import train_options  # noqa: E402
from utils.program import run_program  # noqa: E402
from utils.training.criterion import build_criterion  # noqa: E402
from utils.training.engine import train_one_epoch  # noqa: E402
from utils.training.losses import cross_entropy  # noqa: E402
from utils.training.optimizers import build_optimizer  # noqa: E402
from utils.training.precision import choose_precision  # noqa: E402
from utils.training.recipe import choose_recipe, resolve  # noqa: E402
from utils.training.schedulers import build_scheduler  # noqa: E402
from utils.training.setup import build_network, seed_everything  # noqa: E402

TABLE = RESULTS / "learning_check.csv"
# What makes the smallest variant, where it is not the family's default.
SMALLEST = {
    **{
        family: ["--BACKBONE_TYPE", "resnet18"]
        for family in (
            "ann", "apcnet", "ccnet", "danet", "deeplab", "dmnet", "dnlnet", "emanet", "encnet", "fastfcn",
            "fcn", "gcnet", "isanet", "mask2former", "nonlocal_net", "psanet", "pspnet", "refinenet", "unet",
            "upernet",
        )
    },
    "hrnet": ["--BACKBONE_TYPE", "w18s"],
    "ocrnet": ["--BACKBONE_TYPE", "w18s"],
    "setr": ["--BACKBONE_TYPE", "base", "--MODEL_OPTIONS", "decoder=naive"],
}  # fmt: skip
SHARE = 0.9
BATCH = 4
MANY, FEW, LONGEST = 16, 4, 20 * 60  # images, images of slow families, seconds
EVALUATE_EVERY = 50
CEILING_STEPS, CEILING_RATE = 300, 1.0


class Images:
    """Whole images that lie evenly spread over the training list, read once."""

    def __init__(self, data: DatasetInfo, count: int):
        train = data.splits["train"]
        chosen = [train[i * len(train) // count] for i in range(count)]
        dataset = SegmentationDataset(chosen, data.classes)
        self.items = [dataset[i] for i in range(count)]
        self.num_classes, self.bands = data.classes.num_classes, data.bands

    def all_batches(self) -> list[dict]:
        """Return every image once."""
        return [collate(self.items[i : i + BATCH]) for i in range(0, len(self.items), BATCH)]

    def shuffled_batches(self) -> Iterator[dict]:
        """Yield batches without end, in a new order each time all were seen."""
        sampler = TrainingSampler(len(self.items), BATCH)
        for epoch in itertools.count():
            for keys in sampler.batches(epoch):
                yield collate([self.items[key.index] for key in keys])

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return the images (N, C, H, W) and the masks (N, H, W)."""
        return to_device(collate(self.items), "cpu")


class Training:
    """A family's smallest variant on its way through `limit` steps of the plain recipe."""

    def __init__(self, family: str, images: Images, limit: int, amp: str):
        words = ["--MODEL_TYPE", family, *SMALLEST.get(family, []), "--BATCH_SIZE", str(BATCH), "--AMP", amp]
        options = train_options(words)
        seed_everything(options.SEED, options.DETERMINISTIC)
        self.device = choose_devices(options)[0]
        self.precision, _ = choose_precision(options.AMP, self.device)
        self.network = build_network(options, images.bands, images.num_classes)
        pixels, _ = images.tensors()
        self.network.mean.copy_(pixels.nanmean((0, 2, 3)))
        self.network.std.copy_((pixels - self.network.mean[:, None, None]).square().nanmean((0, 2, 3)).sqrt())
        self.network.to(self.device)
        settings, _ = resolve(options, choose_recipe(options), limit)
        self.clip_grad = settings.clip_grad
        self.criterion = build_criterion(settings, None).to(self.device)
        self.optimizer = build_optimizer(self.network, settings)
        self.scheduler = build_scheduler(self.optimizer, settings, limit, limit)
        self.batches = images.shuffled_batches()
        self.steps = 0

    def go_on(self, steps: int, title: str) -> None:
        """Train for some more steps."""
        train_one_epoch(
            self.network,
            self.batches,
            steps,
            self.criterion,
            self.optimizer,
            self.scheduler,
            self.device,
            title,
            self.clip_grad,
            self.precision,
        )
        self.steps += steps

    def score(self, images: Images) -> float:
        """Return the mIoU on the images."""
        confusion, _, _ = evaluate_network(self.network, images.all_batches(), self.device)
        return confusion.compute().mIoU


def output_grid(network: SegmentationNetwork, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the logits, or of the masks, before they are resized."""
    sizes = []
    handles = [
        module.register_forward_hook(lambda _module, _inputs, output: sizes.append(tuple(output.shape[-2:])))
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.out_channels == network.num_classes
    ]
    training, device = network.training, network.mean.device
    with torch.inference_mode():
        outputs = network.eval()(torch.zeros(1, network.bands, height, width, device=device))
    network.train(training)
    for handle in handles:
        handle.remove()
    return tuple(outputs["mask_logits"][-1].shape[-2:]) if "mask_logits" in outputs else sizes[-1]


def ceiling(images: Images, grid: tuple[int, int]) -> float:
    """Return the mIoU that free logits on a grid reach."""
    _, masks = images.tensors()
    if grid == tuple(masks.shape[-2:]):
        return 1.0  # a number for each pixel
    free = torch.zeros(len(masks), images.num_classes, *grid, requires_grad=True)
    optimizer = torch.optim.Adam([free], CEILING_RATE)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, CEILING_STEPS)
    for _ in range(CEILING_STEPS):
        loss = cross_entropy(resize(free, masks.shape[-2:]), masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    confusion = ConfusionMatrix(images.num_classes)
    confusion.update(resize(free.detach(), masks.shape[-2:]).argmax(1), masks)
    return confusion.compute().mIoU


def number_of_images(family: str, data: DatasetInfo, limit: int, amp: str) -> int:
    """Return how many images a family gets: few where its steps would take too long here."""
    trial = Training(family, Images(data, FEW), limit, amp)
    trial.go_on(1, f"{family}, trial")
    started = time.monotonic()
    trial.go_on(3, f"{family}, trial")
    return FEW if (time.monotonic() - started) / 3 * limit > LONGEST else MANY


def check(family: str, data: DatasetInfo, asked: int | None, limit: int, amp: str) -> dict:
    """Train one family until it reaches its share of the ceiling and return its row of the results."""
    images = Images(data, asked or number_of_images(family, data, limit, amp))
    training = Training(family, images, limit, amp)
    height, width = images.tensors()[1].shape[-2:]
    grid = output_grid(training.network, height, width)
    top = ceiling(images, grid)
    best, started = 0.0, time.monotonic()
    while training.steps < limit and best < SHARE * top:
        steps = min(EVALUATE_EVERY, limit - training.steps)
        title = f"{family}, to step {training.steps + steps}, best mIoU {best:.3f} of {top:.3f}"
        training.go_on(steps, title)
        best = max(best, training.score(images))
    options = training.network.blueprint["options"]
    return {
        "family": family,
        "variant": " ".join(SMALLEST.get(family, [])[1::2]) or options["backbone"],
        "parameters": count_parameters(training.network),
        "images": len(images.items),
        "grid": f"{grid[0]}x{grid[1]}",
        "stride": round(height / grid[0]),
        "ceiling": round(top, 4),
        "mIoU": round(best, 4),
        "reached": best >= SHARE * top,
        "steps": training.steps,
        "limit": limit,
        "seconds": round(time.monotonic() - started),
        "precision": training.precision.name,
        **surroundings(training.device),
    }


def table(rows: list[dict]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| family | variant | parameters | images | stride | ceiling | mIoU | share | steps | learns |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row["family"]):
        score, top = float(row["mIoU"]), float(row["ceiling"])
        cells = [
            row["family"],
            row["variant"],
            f"{int(row['parameters']) / 1e6:.2f} M",
            row["images"],
            row["stride"],
            f"{top:.3f}",
            f"{score:.3f}",
            f"{score / top:.0%}",
            row["steps"],
            "yes" if row["reached"] == "True" else f"not in {row['limit']}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Check what is missing and print the table; 1 where a family does not learn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--DATASET_PATH", type=Path, required=True)
    parser.add_argument("--FAMILIES", default=",".join(list_models()), help="names separated by commas")
    parser.add_argument("--IMAGES", type=number(int, 1), help=f"default: {MANY}, slow families {FEW}")
    parser.add_argument("--AMP", choices=("auto", "bf16", "off"), default="auto", help="as in train.py")
    parser.add_argument("--STEPS", type=number(int, 1), default=1500, help="most steps (default: 1500)")
    options = parser.parse_args(arguments)
    data = scan_dataset(options.DATASET_PATH)
    for family in [find_model(name)[0] for name in options.FAMILIES.split(",")]:
        known = [r for r in read_rows(TABLE) if r["family"] == family and int(r["limit"]) == options.STEPS]
        if any(options.IMAGES in (None, int(row["images"])) for row in known):
            continue
        add_row(TABLE, check(family, data, options.IMAGES, options.STEPS, options.AMP), ("family",))
    rows = read_rows(TABLE)
    print(table(rows))
    return int(any(row["reached"] != "True" for row in rows))


if __name__ == "__main__":
    sys.exit(run_program(main))
