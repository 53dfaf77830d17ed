"""The flags that say which data set is read and what its labels mean."""

from dataclasses import replace

from utils.flag_types import Flag, band_index, number

# The layouts that are read in place; utils.data.layouts has the reader of each.
FORMATS = (
    *("lists", "folders", "csv", "scene", "voc", "ade20k", "cityscapes", "camvid", "loveda"),
    *("potsdam", "vaihingen"),
)
DATASET_PATH = Flag(
    "DATASET_PATH", "./datasets/", 'folder of the data set, or "scene.tif,label.tif", or a CSV of pairs'
)
LABEL_DIR = Flag("LABEL_DIR", None, "folder of the labels, where a data set has several sets of them")
TASK = Flag(
    "TASK",
    "multiclass",
    "multiclass: each pixel has one class; multilabel: the bands of a label are classes, each present (1), "
    "absent (0) or not known (255), and a pixel can have several",
    choices=("multiclass", "multilabel"),
)
LABEL_MAP = Flag(
    "LABEL_MAP",
    None,
    'what label values or colours mean: "0=ignore,1=0,2=1", "1=water,#ff0000=building,*=ignore" (* is the '
    "rest), a JSON file of such an object, or a CSV file (value,class or r,g,b,name); it counts more than "
    "classes.json",
    metavar='"VALUE=CLASS,..."',
)

BAND_INDEX = Flag(
    "BAND_INDEX",
    None,
    "bands to use, in this order, counted from 1 as GDAL and QGIS do, or by name: 4,3,2 or red,nir; bands of "
    "--EXTRA_IMAGES are counted behind the image's own; default: all",
    band_index,
    metavar="N,N,...",
)
EXTRA_IMAGES = Flag(
    "EXTRA_IMAGES",
    None,
    "folder of ancillary rasters (elevation, ...) named like the images, whose bands follow the image's; "
    "several with commas; looked for in the data set's folder first; a file where there is one image",
    metavar="DIR[,DIR]",
)
VAL_FRACTION = Flag(
    "VAL_FRACTION",
    0.1,
    "share of the training images, or of a scene's labelled pixels, held back where no validation "
    "list exists; which ones follows from --SEED",
    number(float, 0, 0.9, above=True),
)

TRAINING_SET = (
    DATASET_PATH,
    Flag(
        "DATASET_FORMAT",
        "auto",
        "layout of the data set; auto recognises it and says what it found",
        choices=("auto", *FORMATS),
    ),
    LABEL_DIR,
    TASK,
    LABEL_MAP,
    BAND_INDEX,
    EXTRA_IMAGES,
    VAL_FRACTION,
)

EVALUATED_SET = (
    DATASET_PATH,
    Flag(
        "DATASET_FORMAT",
        None,
        "layout of the data set; default: as in training",
        choices=("auto", *FORMATS),
    ),
    replace(LABEL_DIR, help=f"{LABEL_DIR.help}; default: as in training"),
    replace(
        TASK, default=None, help="what --PREDICTIONS are maps of; of --WEIGHTS the checkpoint knows the task"
    ),
    replace(LABEL_MAP, help=f"{LABEL_MAP.help}; default: as in training"),
    replace(EXTRA_IMAGES, help=f"{EXTRA_IMAGES.help}; default: as in training"),
    # Maps do not say what the network that made them had seen.
    replace(
        VAL_FRACTION,
        default=None,
        help=f"{VAL_FRACTION.help}; default: as in training, 0.1 with --PREDICTIONS",
    ),
    Flag(
        "SEED",
        None,
        "what training held back follows from it; default: as in training, 0 with --PREDICTIONS",
        number(int, 0),
    ),
    Flag(
        "SPLIT",
        "val",
        "part to evaluate: train, val, test, or another list of the data set; val is what training held "
        "back where no list exists; all is everything",
    ),
)
