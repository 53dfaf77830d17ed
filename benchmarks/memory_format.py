"""Memory format on the CPU: each network's time with channels last beside the usual one.

    python benchmarks/memory_format.py
    python benchmarks/memory_format.py --NETWORKS unet:resnet50 hrnet --SIDE 512

`utils.devices.place_for_prediction` rests on this table. Both take turns in one process; written are the
smallest times over all rounds from images to probabilities, and the largest difference of logits as part of
the largest logit. (It is large where rounding decides which of two equal maxima or uncertain points is taken:
SegNet and PointRend.) A row goes to
benchmarks/results/memory_format.csv, in place of an earlier one of the same network, side and threads.
"""

import argparse
import copy
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.common import RESULTS, add_row  # noqa: E402
from nets import create_model, list_models  # noqa: E402
from utils.devices import place_for_prediction  # noqa: E402
from utils.inference.whole import memory_format_of  # noqa: E402

KEY = ("network", "side", "threads")
BATCH = 2


def seconds(network: nn.Module, images: Tensor) -> float:
    """Return what one pass from images to probabilities takes."""
    started = time.perf_counter()
    network.probabilities(network(images))
    return time.perf_counter() - started


@torch.inference_mode()
def measure(name: str, side: int, rounds: int) -> dict:
    """Return the row of a network, `name` or `name:backbone`, with random weights."""
    torch.manual_seed(0)
    model, _, backbone = name.partition(":")
    chosen = {"backbone": backbone} if backbone else {}
    network = create_model(model, bands=3, num_classes=11, **chosen).eval()
    network.mean.fill_(50.0)
    network.std.fill_(29.0)
    changed_network = place_for_prediction(copy.deepcopy(network), torch.device("cpu"))
    images = 100 * torch.rand(BATCH, 3, side, side)
    last = images.contiguous(memory_format=memory_format_of(changed_network))
    expected, found = network(images)["logits"], changed_network(last)["logits"]
    difference = (expected - found).abs().max() / expected.abs().max()
    times = [(seconds(network, images), seconds(changed_network, last)) for _ in range(rounds)]
    usual, changed = (min(taken) for taken in zip(*times, strict=True))
    return {
        "network": name,
        "side": side,
        "threads": torch.get_num_threads(),
        "usual_seconds": f"{usual:.3f}",
        "channels_last_seconds": f"{changed:.3f}",
        "ratio": f"{changed / usual:.2f}",
        "difference": f"{difference:.1e}",
    }


def main() -> None:
    """Measure the networks and add their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--NETWORKS", nargs="+", default=list_models(), help="name or name:backbone")
    parser.add_argument("--SIDE", type=int, default=384, help="of the square images, pixels")
    parser.add_argument("--THREADS", type=int, default=1, help="of PyTorch")
    parser.add_argument("--ROUNDS", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.THREADS)
    for name in options.NETWORKS:
        row = measure(name, options.SIDE, options.ROUNDS)
        add_row(RESULTS / "memory_format.csv", row, KEY)
        print(*row.values(), sep=",", flush=True)


if __name__ == "__main__":
    main()
