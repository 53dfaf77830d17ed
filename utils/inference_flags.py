"""The flags of the programs that use a trained network; see `flags`."""

from dataclasses import replace

from utils.dataset_flags import EVALUATED_SET, EXTRA_IMAGES
from utils.flag_types import Flag, augmentations, number, scores
from utils.flags import WEIGHTS

TTA = Flag(
    "TTA",
    None,
    "predict changed copies too and take the mean: flip (mirrored), rot (quarter turns), factors of size, "
    'as in "flip,rot,0.75,1.25"; every combination is one more pass',
    augmentations,
    metavar="LIST",
)

OVERLAP = Flag("OVERLAP", 0.5, "part of a window shared with its neighbour", number(float, 0, 0.9))

BLEND = Flag(
    "BLEND",
    "gaussian",
    "weights of overlapping windows: gaussian and cosine fade to the border, flat is the plain mean, "
    "none takes the window whose middle is nearest",
    choices=("gaussian", "cosine", "flat", "none"),
)

EVALUATION = (
    "evaluation",
    (
        WEIGHTS,
        *EVALUATED_SET,
        Flag("OUTPUT", None, "folder of tables and pictures; default: evaluation_SPLIT beside the weights"),
        Flag("PREDICTIONS", None, "folder of class maps to judge instead of a network", metavar="DIR"),
        Flag("SHOW_DIR", None, "folder for an overlay of every image's prediction", metavar="DIR"),
        Flag("WORST", 8, "pictures of this many worst images", number(int, 0)),
        TTA,
        Flag(
            "WINDOW",
            None,
            "predict by windows of this side in pixels, as predict_large.py does; default: images whole, "
            "scenes by windows as large as the training crop",
            number(int, 32),
        ),
        OVERLAP,
        BLEND,
    ),
)

PREDICTION_EXTRA = (
    "folder of ancillary rasters named like the images, or a file where there is one image, for a network "
    "that was trained with them; several with commas"
)

PREDICTION = (
    "prediction",
    (
        WEIGHTS,
        Flag(
            "INPUT",
            "test_sample/",
            "image, folder, pattern in quotes, text file with a path per line, VRT, or virtual path of GDAL "
            "as /vsicurl/https://...",
        ),
        Flag("OUTPUT", "output/", "folder for maps and overlays"),
        replace(EXTRA_IMAGES, help=PREDICTION_EXTRA),
        Flag(
            "SCORES",
            None,
            "also write scores: probabilities (of each class), confidence (the largest; of several labels "
            "the least sure one), entropy (0 sure to 1 undecided); the type follows a colon: float32, "
            'float16 or uint8 (x 254), as in "probabilities:uint8,entropy"; alone: probabilities:float32',
            scores,
            bare=(("probabilities", "float32"),),
            metavar="KIND[:TYPE],...",
        ),
        TTA,
    ),
)

EXPORT = (
    "export",
    (
        WEIGHTS,
        Flag(
            "FORMAT",
            "onnx",
            "onnx (ONNX Runtime and most other programs), torch_export (.pt2: PyTorch without this project) "
            "or torchscript (libtorch; PyTorch no longer develops it)",
            choices=("onnx", "torch_export", "torchscript"),
        ),
        Flag("OUTPUT", None, "file to write; default: beside the weights, with the format's ending"),
        Flag(
            "IMAGE",
            None,
            "image on which the file must agree with the network; default: one of the data set that the "
            "checkpoint names where it is still there, else one made from the band statistics",
        ),
    ),
)

WINDOWS = (
    "windows",
    (
        Flag("WINDOW", None, "side of a window in pixels; default: the training crop", number(int, 32)),
        OVERLAP,
        BLEND,
    ),
)

SCENES = (
    "scenes",
    (
        Flag(
            "FORMAT",
            "tif",
            "kind of maps: tif (tiled GeoTIFF), cog (cloud-optimised, with overviews) or png (palette PNG "
            "of images without coordinates; the others stay tif, also maps of several labels)",
            choices=("tif", "cog", "png"),
        ),
        Flag(
            "VECTOR",
            None,
            "also write the areas of the classes as polygons: gpkg (GeoPackage) or geojson (in longitude and "
            "latitude)",
            choices=("gpkg", "geojson"),
            bare="gpkg",
        ),
        Flag("RESUME", False, "go on with interrupted scenes and leave out finished ones of that run", None),
    ),
)
