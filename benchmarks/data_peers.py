"""The training pipelines of MMSegmentation and torchvision, and OpenCV's decoding, to compare ours with.

Each function returns a draw: the sample of a number, for which all pipelines take the same image.
"""

import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

Draw = Callable[[int], object]
Pair = tuple[Path, Path]


def mmsegmentation(pairs: Sequence[Pair], size: tuple[int, int], crop: tuple[int, int]) -> Draw:
    """Return MMSegmentation's own training pipeline."""
    import cv2
    import mmcv

    # What is wanted are the transforms; the networks' compiled operators only have to be importable.
    operators = types.ModuleType("mmcv.ops")
    operators.__getattr__ = _stand_in
    sys.modules.setdefault("mmcv.ops", operators)
    mmcv.__version__ = "2.1.0"  # mmsegmentation 1.2.2 refuses 2.2, which has the same transforms
    cv2.setNumThreads(1)
    import mmseg.datasets.transforms  # noqa: F401 - registers them
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope

    DefaultScope.get_instance(f"data {size}", scope_name="mmseg")
    steps = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "RandomResize", "scale": size[::-1], "ratio_range": (0.5, 2.0), "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": crop, "cat_max_ratio": 0.75},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PhotoMetricDistortion"},
        {"type": "PackSegInputs"},
    ]
    pipeline = Compose(steps)

    def draw(number: int) -> object:
        image, label = pairs[number % len(pairs)]
        paths = {"img_path": str(image), "seg_map_path": str(label)}
        return pipeline({**paths, "reduce_zero_label": False, "seg_fields": []})

    return draw


def _stand_in(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


def torchvision_v2(pairs: Sequence[Pair], size: tuple[int, int], crop: tuple[int, int]) -> Draw:
    """Return the same of torchvision's transforms; it knows no limit of a class's share."""
    from torchvision import io, tv_tensors
    from torchvision.transforms import v2

    pipeline = v2.Compose(
        [
            v2.ScaleJitter(size, (0.5, 2.0), antialias=False),
            v2.RandomCrop(crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: 255}),
            v2.RandomHorizontalFlip(),
            v2.RandomPhotometricDistort(),
        ]
    )

    def draw(number: int) -> object:
        image, label = (io.decode_image(io.read_file(str(path))) for path in pairs[number % len(pairs)])
        return pipeline(tv_tensors.Image(image), tv_tensors.Mask(label))

    return draw


def opencv_decoding(pairs: Sequence[Pair]) -> Draw:
    """Return the decoding of image and label alone, by OpenCV."""
    import cv2

    cv2.setNumThreads(1)

    def draw(number: int) -> object:
        image, label = pairs[number % len(pairs)]
        return cv2.imread(str(image)), cv2.imread(str(label), cv2.IMREAD_UNCHANGED)

    return draw
