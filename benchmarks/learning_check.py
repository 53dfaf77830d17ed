"""Does every network learn? Each family fits a few images as well as its own output grid allows.

    python benchmarks/learning_check.py --DATASET_PATH data/camvid-small

The smallest variant of each family is trained by its plain recipe on 16 whole images, without augmentation
and dropout (what is asked is whether it can fit), in batches of 4, and has to reach 90 % of a ceiling within
1,500 steps. The ceiling is the mIoU on these
images of logits that are free numbers on the network's output grid, fitted with the same resize and loss.
Where 1,500 steps would take more than 20 minutes, 4 images are taken, which are learnt in fewer steps.
Finished families are kept in benchmarks/results/ and not repeated.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

from timm.layers import DropPath  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.modules.dropout import _DropoutNd  # noqa: E402

from benchmarks.common import RESULTS, add_row, count_parameters, read_rows, surroundings  # noqa: E402
from benchmarks.output_ceiling import BATCH, Images, ceiling, output_grid  # noqa: E402
from nets.registry import find_model, list_models  # noqa: E402
from utils.data.layout import DatasetInfo, scan_dataset  # noqa: E402
from utils.devices import choose_devices  # noqa: E402
from utils.evaluation.evaluate import evaluate_network  # noqa: E402
from utils.flag_types import number  # noqa: E402
from utils.options import train_options  # noqa: E402
from utils.program import run_program  # noqa: E402
from utils.training.criterion import build_criterion  # noqa: E402
from utils.training.engine import Trainer, train_one_epoch  # noqa: E402
from utils.training.optimizers import build_optimizer, freeze_norms  # noqa: E402
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
            "fcn", "gcnet", "icnet", "isanet", "knet", "manet", "mask2former", "maskformer", "nonlocal_net",
            "pan", "pointrend", "psanet", "pspnet", "refinenet", "unet", "upernet",
        )
    },
    "eomt": ["--BACKBONE_TYPE", "dinov2_small"],
    "hrnet": ["--BACKBONE_TYPE", "w18s"],
    "ocrnet": ["--BACKBONE_TYPE", "w18s"],
    "dpt": ["--BACKBONE_TYPE", "tiny"],
    "segmenter": ["--BACKBONE_TYPE", "tiny"],
    "setr": ["--BACKBONE_TYPE", "base", "--MODEL_OPTIONS", "decoder=naive"],
}  # fmt: skip
# Further members of a family that are another network.
MORE = {
    "bisenet": [["--MODEL_OPTIONS", "version=v2"]],
    "fcn": [["--BACKBONE_TYPE", "vgg16", "--MODEL_OPTIONS", "version=8s"]],
}
SHARE = 0.9
MANY, FEW, LONGEST = 16, 4, 20 * 60  # images, images of slow families, seconds
EVALUATE_EVERY = 50


class Training:
    """A network, given by flags of train.py, on its way through `limit` steps of the plain recipe."""

    def __init__(self, flags: list[str], images: Images, limit: int, amp: str):
        words = [*flags, "--BATCH_SIZE", str(BATCH), "--AMP", amp]
        options = train_options(words)
        seed_everything(options.SEED, options.DETERMINISTIC)
        device = choose_devices(options)[0]
        precision, _ = choose_precision(options.AMP, device)
        self.network = build_network(options, images.bands, images.num_classes)
        switch_off_dropout(self.network)
        pixels, _ = images.tensors()
        self.network.mean.copy_(pixels.nanmean((0, 2, 3)))
        self.network.std.copy_((pixels - self.network.mean[:, None, None]).square().nanmean((0, 2, 3)).sqrt())
        self.network.to(device)
        settings, _ = resolve(options, choose_recipe(options), limit)
        freeze_norms(self.network, settings)
        optimizer = build_optimizer(self.network, settings)
        self.trainer = Trainer(
            model=self.network,
            batches=images.shuffled_batches(),
            criterion=build_criterion(settings, None).to(device),
            optimizer=optimizer,
            scheduler=build_scheduler(optimizer, settings, limit, limit),
            device=device,
            precision=precision,
            clip_grad=settings.clip_grad,
        )
        self.steps = 0

    def go_on(self, steps: int, title: str) -> None:
        """Train for some more steps."""
        train_one_epoch(self.trainer, steps, title)
        self.steps += steps

    def score(self, images: Images) -> float:
        """Return the mIoU on the images."""
        confusion, _, _ = evaluate_network(self.network, images.all_batches(), self.trainer.device)
        return confusion.compute().mIoU


def switch_off_dropout(network: nn.Module) -> None:
    """Let every unit and every residual branch take part in each step."""
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # of attention weights


def number_of_images(flags: list[str], data: DatasetInfo, limit: int, amp: str) -> int:
    """Return how many images a network gets: few where its steps would take too long here."""
    trial = Training(flags, Images(data, FEW), limit, amp)
    trial.go_on(1, "trial")
    started = time.monotonic()
    trial.go_on(3, "trial")
    return FEW if (time.monotonic() - started) / 3 * limit > LONGEST else MANY


def check(
    family: str, choices: list[str], data: DatasetInfo, asked: int | None, limit: int, amp: str
) -> dict:
    """Train a network until it reaches its share of the ceiling and return its row of the results.

    Args:
        family: name of its family.
        choices: further flags of train.py that choose the network.
        data: the data set.
        asked: number of images; by default what the time allows.
        limit: most steps.
        amp: as in train.py.
    """
    flags = ["--MODEL_TYPE", family, *choices]
    images = Images(data, asked or number_of_images(flags, data, limit, amp))
    training = Training(flags, images, limit, amp)
    height, width = images.tensors()[1].shape[-2:]
    grid = output_grid(training.network, height, width)
    top = ceiling(images, grid)
    best, started = 0.0, time.monotonic()
    while training.steps < limit and best < SHARE * top:
        steps = min(EVALUATE_EVERY, limit - training.steps)
        title = f"{family} {variant(choices)}, best mIoU {best:.3f} of {top:.3f}, step {training.steps}"
        training.go_on(steps, title)
        best = max(best, training.score(images))
    options = training.network.blueprint["options"]
    return {
        "family": family,
        "variant": variant(choices) or options["backbone"],
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
        "precision": training.trainer.precision.name,
        **surroundings(training.trainer.device),
    }


def variant(choices: list[str]) -> str:
    """Return the values of flags."""
    return " ".join(choices[1::2])


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


def is_known(family: str, choices: list[str], options: argparse.Namespace) -> bool:
    """Return whether the results hold such a run of the network."""
    return any(
        row["family"] == family
        and variant(choices) in ("", row["variant"])
        and int(row["limit"]) == options.STEPS
        and options.IMAGES in (None, int(row["images"]))
        for row in read_rows(TABLE)
    )


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
    families = [find_model(name)[0] for name in options.FAMILIES.split(",")]
    networks = [
        (family, choices)
        for family in families
        for choices in [SMALLEST.get(family, []), *MORE.get(family, [])]
    ]
    for family, choices in networks:
        if not is_known(family, choices, options):
            row = check(family, choices, data, options.IMAGES, options.STEPS, options.AMP)
            add_row(TABLE, row, ("family", "variant"))
    rows = read_rows(TABLE)
    print(table(rows))
    return int(any(row["reached"] != "True" for row in rows))


if __name__ == "__main__":
    sys.exit(run_program(main))
