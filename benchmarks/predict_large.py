"""predict_large.py beside MONAI's sliding_window_inference: time and peak memory on one scene.

    pip install --no-deps monai
    python benchmarks/predict_large.py --SCENE data/scene-bluemarble/images/world.tif --NETWORK pointwise

Same network, windows, batches, weights of the windows and results for both: a scene on the disk becomes a
compressed class map on the disk. A third run, "forward", only sends the windows through the network. MONAI
and "forward" are run twice: with images as they come, and in the memory format of `place_for_prediction`
("channels last"), so that the machinery is seen apart from it. Each run is a process of its own and they take
turns, so that a ratio of two compares like with like. Written are the smallest times over all rounds (wall
clock, and processor time, which other programs disturb less), the memory above what the process had before
its work began, and how much of it "forward" of the same format does not need.
`--GROWTH` measures our memory on empty scenes of growing size instead. Rows are added to
benchmarks/results/predict_large.csv.
"""

import argparse
import csv
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the program is run by its path

import rasterio  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from nets.registry import create_model  # noqa: E402
from nets.segmentation_model import SegmentationNetwork  # noqa: E402
from utils.data.labels import Classes  # noqa: E402
from utils.data.raster import Window, raster_info, read_image  # noqa: E402
from utils.devices import place_for_prediction  # noqa: E402
from utils.inference.class_map import to_class_map  # noqa: E402
from utils.inference.inputs import Job  # noqa: E402
from utils.inference.results import ResultOptions  # noqa: E402
from utils.inference.scenes import GDAL_CACHE_MB, WindowOptions, predict_scene  # noqa: E402
from utils.inference.whole import predictor  # noqa: E402
from utils.inference.windows import to_images  # noqa: E402
from utils.inference.writing import ClassMapWriter  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "predict_large.csv"
NUM_CLASSES, OVERLAP, BATCH = 11, 0.25, 4
CLASSES = Classes(
    tuple(f"class {i}" for i in range(NUM_CLASSES)),
    tuple((20 * i, 255 - 20 * i, 100) for i in range(NUM_CLASSES)),
    {i: i for i in range(NUM_CLASSES)},
    (),
)
GROWTH = ((4000, 4000), (32000, 4000), (2000, 32000), (8000, 32000), (32000, 32000))
TIMES = ("seconds", "processor_seconds")
COLUMNS = ("network", "scene", "run", "threads", *TIMES, "peak_mib", "above_network_mib")


class Pointwise(SegmentationNetwork):
    """One 1x1 convolution: only the machinery around it counts."""

    def __init__(self, bands: int, num_classes: int) -> None:
        super().__init__(bands, num_classes)
        self.layer = nn.Conv2d(bands, num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map (B, C, H, W) to {"logits": (B, K, H, W)}."""
        return {"logits": self.layer(self.normalize(images))}


def make_network(name: str, bands: int) -> SegmentationNetwork:
    """Return a network with random weights in eval mode."""
    torch.manual_seed(0)
    if name == "pointwise":
        network = Pointwise(bands, NUM_CLASSES)
    else:
        network = create_model(name, bands=bands, num_classes=NUM_CLASSES, backbone="resnet18")
    network.mean.fill_(100.0)
    network.std.fill_(60.0)
    return network.eval()


def as_they_come(network: SegmentationNetwork) -> Callable[[Tensor], Tensor]:
    """Return images (B, C, h, w) -> probabilities (B, K, h, w), as anybody calls a network."""

    def predict(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return network.probabilities(network(images))

    return predict


def run_ours(job: Job, predict: Callable, options: WindowOptions, threads: int) -> None:
    """Read, predict, blend and write as predict_large.py does."""
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB):
        predict_scene(job, predict, CLASSES, options, ResultOptions(), threads=threads)


def run_monai(job: Job, predict: Callable, options: WindowOptions, threads: int) -> None:
    """Read the scene, let MONAI predict it, write the class map."""
    from monai.inferers import sliding_window_inference

    image, valid = read_image(job.info.path)
    images = to_images(image, valid)[None]
    with torch.inference_mode():
        probabilities = sliding_window_inference(
            images, options.window, BATCH, predict, overlap=OVERLAP, mode="gaussian", sigma_scale=0.125
        )
    names = {"names": CLASSES.names, "colors": CLASSES.colors}
    with ClassMapWriter(job.product(".tif"), **job.frame, **names) as writer:
        writer.write(0, to_class_map(probabilities[0], valid, NUM_CLASSES))


def run_forward(job: Job, predict: Callable, options: WindowOptions, threads: int) -> None:
    """Send all windows through the network, and nothing else; the pixels are those of the first window."""
    grid = options.grid(job.info)
    image, valid = read_image(job.info.path, Window(0, 0, grid.height, grid.width))
    images = to_images(image, valid)[None].repeat(BATCH, 1, 1, 1)
    for start in range(0, len(grid), BATCH):
        predict(images[: len(grid) - start])


PLAIN = ("monai", "forward")  # images and weights in the memory format that they come in
RUNS = {
    "ours": run_ours,
    "monai": run_monai,
    "forward": run_forward,
    "monai channels last": run_monai,
    "forward channels last": run_forward,
}


def measure(options: argparse.Namespace) -> None:
    """Do one run in this process and print what it took as JSON."""
    torch.set_num_threads(options.THREADS)
    info = raster_info(options.SCENE)
    network = make_network(options.NETWORK, info.bands)
    cpu = torch.device("cpu")
    plain = options.RUN in PLAIN
    predict = as_they_come(network) if plain else predictor(place_for_prediction(network, cpu), cpu)
    side = (options.WINDOW, options.WINDOW)
    windows = WindowOptions(side, OVERLAP, BATCH)
    if RUNS[options.RUN] is run_monai:
        import monai.inferers  # noqa: F401 - its import is not part of the work
    with tempfile.TemporaryDirectory() as folder:
        job = Job(info, Path(folder), "scene")
        before = resource.getrusage(resource.RUSAGE_SELF)
        started = time.perf_counter()
        RUNS[options.RUN](job, predict, windows, options.READERS)
        seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = (after.ru_maxrss - before.ru_maxrss) / 1024  # Linux counts in KiB
    print(json.dumps({"seconds": seconds, "processor_seconds": processor, "peak_mib": peak}))


def in_process(options: argparse.Namespace, run: str, scene: Path) -> dict:
    """Return what one run takes in a process of its own."""
    words = ["--RUN", run, "--SCENE", str(scene), "--NETWORK", options.NETWORK]
    words += ["--WINDOW", str(options.WINDOW), "--THREADS", str(options.THREADS)]
    words += ["--READERS", str(options.READERS)]
    # Huge pages for all, as `run_program` asks for them: the machinery is compared, not the allocator.
    environment = {**os.environ, "THP_MEM_ALLOC_ENABLE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, *words], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(options: argparse.Namespace) -> list[list]:
    """Let the runs take turns and return a row for each."""
    best = {run: {"seconds": math.inf, "processor_seconds": math.inf, "peak_mib": 0.0} for run in RUNS}
    for _ in range(options.ROUNDS):
        for run, taken in best.items():
            now = in_process(options, run, options.SCENE)
            for name in TIMES:
                taken[name] = min(taken[name], now[name])
            taken["peak_mib"] = max(taken["peak_mib"], now["peak_mib"])
    alone = {run: "forward" if run in PLAIN else "forward channels last" for run in best}
    return [row(options, options.SCENE.stem, run, best[run], best[alone[run]]) for run in best]


def grow(options: argparse.Namespace) -> list[list]:
    """Measure our memory on empty scenes of growing size."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for height, width in GROWTH:
            scene = Path(folder) / f"{height}x{width}.tif"
            profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "tiled": True, "SPARSE_OK": True}
            with rasterio.open(scene, "w", **profile, height=height, width=width):
                pass
            rows.append(row(options, scene.stem, "ours", in_process(options, "ours", scene), None))
            print(*rows[-1], sep=",", flush=True)
    return rows


def row(options: argparse.Namespace, scene: str, run: str, taken: dict, network: dict | None) -> list:
    """Return the cells of a run."""
    above = "" if network is None else f"{taken['peak_mib'] - network['peak_mib']:.0f}"
    times = [f"{taken[name]:.2f}" for name in TIMES]
    return [options.NETWORK, scene, run, options.THREADS, *times, f"{taken['peak_mib']:.0f}", above]


def main() -> None:
    """Compare, or measure one run where a process of the comparison asks for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--SCENE", type=Path, help="scene of any bands")
    parser.add_argument("--NETWORK", default="pointwise", choices=("pointwise", "unet"))
    parser.add_argument("--WINDOW", type=int, default=512, help="pixels")
    parser.add_argument("--THREADS", type=int, default=torch.get_num_threads(), help="of PyTorch")
    parser.add_argument("--READERS", type=int, default=1, help="threads that read")
    parser.add_argument("--ROUNDS", type=int, default=2)
    parser.add_argument("--GROWTH", action="store_true", help="measure our memory on empty scenes instead")
    parser.add_argument("--RUN", choices=tuple(RUNS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.RUN:
        measure(options)
        return
    rows = grow(options) if options.GROWTH else compare(options)
    new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, *rows] if new else rows)
    print("\n".join(",".join(map(str, cells)) for cells in [COLUMNS, *rows]))


if __name__ == "__main__":
    main()
