"""Our networks and the peers' by one recipe: CamVid from scratch, side by side.

    python benchmarks/camvid_from_scratch.py --DATASET_PATH data/camvid-small --SEEDS 0,1,2

Every network is trained by the same loop on the same batches: AdamW (1e-3, SegFormer 6e-4), weight decay
0.01, poly 0.9, no warm-up, batch 8, random scale 0.5-2, crop 176x240, left-right flips, 12 epochs, plain
cross-entropy. The score is the test mIoU of the last epoch. Finished runs are kept in benchmarks/results/ and
not repeated.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.common import (  # noqa: E402
    RESULTS,
    add_row,
    count_parameters,
    on_test_split,
    read_rows,
    scratch_folder,
    surroundings,
    train_run,
)
from nets.layers.resize import resize  # noqa: E402
from nets.segmentation_model import SegmentationNetwork  # noqa: E402
from utils.training.setup import build_network  # noqa: E402

TABLE = RESULTS / "camvid_from_scratch.csv"
COMMON = [
    "--OPTIMIZER_TYPE",
    "adamw",
    "--WEIGHT_DECAY",
    "0.01",
    "--LR_SCHEDULER",
    "poly",
    "--POLY_POWER",
    "0.9",
    "--WARMUP_ITERS",
    "0",
    "--BATCH_SIZE",
    "8",
    "--CROP_SIZE",
    "176,240",
    "--FLIP",
    "h",
    "--AUGMENT",
    "light",
    "--EPOCHS",
    "12",
    "--MODEL_SAVE_EPOCHS",
    "1000",
]


class Peer(SegmentationNetwork):
    """A peer's network behind our contract; `multiple` pads as the peer's users have to."""

    def __init__(self, body: nn.Module, bands: int, num_classes: int, read: Callable, multiple: int = 1):
        super().__init__(bands, num_classes)
        self.body, self.read, self.multiple = body, read, multiple
        self.blueprint = {"name": type(body).__name__, "options": {}}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map (B, C, H, W) to {"logits": (B, K, H, W)}."""
        height, width = images.shape[-2:]
        x = F.pad(self.normalize(images), (0, -width % self.multiple, 0, -height % self.multiple))
        logits = resize(self.read(self.body(x)), x.shape[-2:])
        return {"logits": logits[..., :height, :width]}


def smp_unet(_options: argparse.Namespace, bands: int, num_classes: int) -> nn.Module:
    """segmentation_models.pytorch's Unet on ResNet-18."""
    import segmentation_models_pytorch as smp

    body = smp.Unet("resnet18", encoder_weights=None, in_channels=bands, classes=num_classes)
    return Peer(body, bands, num_classes, read=lambda logits: logits, multiple=32)


def hf_segformer(_options: argparse.Namespace, bands: int, num_classes: int) -> nn.Module:
    """Hugging Face's SegFormer-b0."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    body = SegformerForSemanticSegmentation(SegformerConfig(num_channels=bands, num_labels=num_classes))
    return Peer(body, bands, num_classes, read=lambda outputs: outputs.logits)


NETWORKS = {
    "unet resnet18": (["--BACKBONE_TYPE", "resnet18", "--INIT_LR", "1e-3"], build_network),
    "smp Unet resnet18": (["--BACKBONE_TYPE", "resnet18", "--INIT_LR", "1e-3"], smp_unet),
    "segformer b0": (["--MODEL_TYPE", "segformer", "--INIT_LR", "6e-4"], build_network),
    "Hugging Face SegFormer b0": (["--MODEL_TYPE", "segformer", "--INIT_LR", "6e-4"], hf_segformer),
}


def train_and_test(name: str, dataset: Path, seed: int, workers: int) -> dict:
    """Train one network and return its row of the results."""
    flags, build = NETWORKS[name]
    words = [
        *COMMON,
        *flags,
        "--DATASET_PATH",
        str(dataset),
        "--SEED",
        str(seed),
        "--NUM_WORKERS",
        str(workers),
    ]
    with scratch_folder():
        trained = train_run(words, f"{name}, seed {seed}", build)
    session = trained.session
    return {
        "network": name,
        "seed": seed,
        "test_mIoU": round(on_test_split(session, workers).compute().mIoU, 4),
        "parameters": count_parameters(session.model),
        "seconds": round(trained.seconds),
        **surroundings(session.device),
    }


def table(rows: list[dict]) -> str:
    """Return the results as a Markdown table: one line per network, mean and range over the seeds."""
    lines = ["| network | parameters | test mIoU per seed | mean |", "|---|---|---|---|"]
    for name in NETWORKS:
        own = sorted((row for row in rows if row["network"] == name), key=lambda row: int(row["seed"]))
        if own:
            scores = [float(row["test_mIoU"]) for row in own]
            listed = ", ".join(f"{score:.3f}" for score in scores)
            millions = int(own[0]["parameters"]) / 1e6
            lines.append(f"| {name} | {millions:.2f} M | {listed} | {statistics.mean(scores):.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--DATASET_PATH", type=Path, required=True)
    parser.add_argument("--SEEDS", default="0,1,2")
    parser.add_argument("--NETWORKS", default=",".join(NETWORKS), help="names separated by commas")
    parser.add_argument("--NUM_WORKERS", type=int, default=0)
    options = parser.parse_args()
    dataset = options.DATASET_PATH.resolve()
    for seed in map(int, options.SEEDS.split(",")):
        for name in options.NETWORKS.split(","):
            if any(row["network"] == name and int(row["seed"]) == seed for row in read_rows(TABLE)):
                continue
            row = train_and_test(name, dataset, seed, options.NUM_WORKERS)
            add_row(TABLE, row, ("network", "seed"))
    print(table(read_rows(TABLE)))


if __name__ == "__main__":
    main()
