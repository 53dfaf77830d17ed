"""Checkpoints of OpenMMLab (MMSegmentation 0.x and 1.x): architecture, classes, normalisation and weights.

The file carries its whole configuration as text; the type of its decode head chooses the translator. A
translator is a file `nets/importers/mmseg_FAMILY.py` with

    HEADS = ("FCNHead",)          # types of decode heads it translates
    BACKBONES = ("HRNet",)        # optional: only with these backbones; goes before translators without it
    NECKS = ("JPU",)              # optional: only with these necks, likewise
    def translate(model, keys): ...

where `model` is the configuration's model section and `keys` are the checkpoint's tensor names. It returns
the family's name, the builder's options without bands and num_classes, and rename rules: (pattern,
replacement) pairs of which the first that matches the beginning of a name rewrites that beginning; a
replacement of None drops the tensor (buffers that are computed anew). A fourth item may be a function that
maps the state dict, in the checkpoint's names, to one whose values lie as ours do (merged projections,
another order of channels).

Projects built on MMSegmentation also have checkpoints without the configuration. A translator whose networks
can be told by their tensors alone has besides

    def describe(state_dict): ...  # the model section, None for other networks
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import Tensor

from nets.errors import UserError
from nets.importers.about import describe_import, voc_color
from nets.importers.mmseg_config import find_values, last_head, parse_config, type_of
from nets.importers.placing import place_weights, rename
from nets.registry import create_model
from nets.segmentation_model import SegmentationNetwork

# Heads whose `out_channels` is the width of the mask features.
_MASK_HEADS = ("MaskFormerHead", "Mask2FormerHead")


@dataclass(frozen=True)
class Imported:
    """What an OpenMMLab checkpoint says.

    Attributes:
        blueprint: {"name": family, "options": the builder's arguments, bands and num_classes among them}.
        state_dict: weights by our names, without the buffers mean and std.
        class_names: name of each class.
        colors: red, green, blue (0..255) of each class.
        mean, std: per band in data units.
        band_names: of the images that the network was trained on.
        crop_size: height and width of a training crop or of the test window, None where it is not said.
        label_offset: 1 where label value 0 was ignored and value i is class i - 1, else 0.
        epoch: epochs trained; 0 where only iterations were counted.
    """

    blueprint: dict
    state_dict: dict[str, Tensor]
    class_names: list[str]
    colors: list[list[int]]
    mean: list[float]
    std: list[float]
    band_names: list[str]
    crop_size: list[int] | None
    label_offset: int
    epoch: int

    @property
    def facts(self) -> dict:
        """Everything beside blueprint and weights, as `describe_import` takes it."""
        names = ("class_names", "colors", "mean", "std", "band_names", "crop_size", "label_offset", "epoch")
        return {name: getattr(self, name) for name in names}


def is_openmmlab(checkpoint: object) -> bool:
    """Return whether an opened checkpoint is one of OpenMMLab's with its configuration."""
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        return False
    meta = checkpoint.get("meta")
    return isinstance(meta, dict) and isinstance(meta.get("cfg", meta.get("config")), str)


def read_openmmlab(checkpoint: dict) -> Imported:
    """Translate an opened OpenMMLab checkpoint.

    Raises:
        UserError: no configuration, a network that is not here, or tensors without a place.
    """
    if not is_openmmlab(checkpoint):
        raise UserError(
            "this is no OpenMMLab checkpoint with its configuration text in meta; "
            "name the network by --MODEL_TYPE and --MODEL_OPTIONS"
        )
    meta = checkpoint["meta"]
    config = parse_config(meta.get("cfg", meta.get("config")))
    model = config.get("model")
    if not isinstance(model, dict):
        raise UserError("the checkpoint's configuration text defines no model; it cannot be imported")
    mean, std, band_names = _normalization(config)
    blueprint, state_dict = _translated(model, _plain_names(checkpoint["state_dict"]), len(band_names))
    names, colors = _classes(meta, blueprint["options"]["num_classes"])
    return Imported(
        blueprint=blueprint,
        state_dict=state_dict,
        class_names=names,
        colors=colors,
        mean=mean,
        std=std,
        band_names=band_names,
        crop_size=_crop_size(config),
        label_offset=int(True in find_values(config, "reduce_zero_label")),
        epoch=meta["epoch"] if isinstance(meta.get("epoch"), int) else 0,
    )


def describe_tensors(state_dict: dict[str, Tensor]) -> dict | None:
    """Return the model section of a network that its tensors alone tell, None where none does."""
    sections = (module.describe(state_dict) for module in _modules() if hasattr(module, "describe"))
    return next((section for section in sections if section is not None), None)


def read_tensors(state_dict: dict[str, Tensor]) -> tuple[dict, dict[str, Tensor], dict]:
    """Translate weights of a network that its tensors alone tell.

    Returns:
        The blueprint, the state dict of our network, which `place_weights` loads, and what is known beside
        them, as `describe_import` takes it.

    Raises:
        UserError: as `read_openmmlab`.
    """
    model = describe_tensors(state_dict)
    if model is None:
        raise UserError("the names of these tensors tell no network; give a file with its configuration")
    facts = {}
    if "data_preprocessor" in model:
        facts = dict(zip(("mean", "std", "band_names"), _normalization({"model": model}), strict=True))
    return *_translated(model, state_dict, _bands(model["backbone"])), facts


def load_openmmlab(checkpoint: dict) -> SegmentationNetwork:
    """Build the network of an opened OpenMMLab checkpoint with its weights, in eval mode.

    Raises:
        UserError: as `read_openmmlab`, or tensors missing or of another shape.
    """
    imported = read_openmmlab(checkpoint)
    network = create_model(imported.blueprint["name"], **imported.blueprint["options"])
    place_weights(network, imported.state_dict)
    describe_import(network, "OpenMMLab", **imported.facts)
    return network.eval()


def _translated(model: dict, state_dict: dict[str, Tensor], bands: int) -> tuple[dict, dict[str, Tensor]]:
    """Return blueprint and weights of ours for a model section and its tensors."""
    translate, num_classes = _translator(model), _num_classes(last_head(model))
    family, options, rules, *convert = translate(model, list(state_dict))
    for function in convert:
        state_dict = function(state_dict)
    blueprint = {"name": family, "options": {"bands": bands, "num_classes": num_classes, **options}}
    return blueprint, rename(state_dict, rules)


def _bands(backbone: dict) -> int:
    """Return the bands of a backbone's section; timm's and the authors' networks say `in_chans`."""
    inner = backbone.get("backbone_cfg", {})
    named = (part[key] for part in (backbone, inner) for key in ("in_channels", "in_chans") if key in part)
    return next(named, 3)


def _modules() -> Iterator[ModuleType]:
    """Yield the translators' files."""
    for found in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if found.name.startswith("mmseg_"):
            yield importlib.import_module(f"nets.importers.{found.name}")


def _plain_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {re.sub(r"^(module\.)+", "", key): value for key, value in state_dict.items()}
    # The normalisation comes from the configuration; 0.x kept its moving averages as extra buffers.
    return {key: value for key, value in named.items() if not key.startswith(("data_preprocessor.", "ema_"))}


def _translator(model: dict) -> Callable:
    head = type_of(last_head(model))
    backbone, neck = (type_of(model.get(part) or {}) for part in ("backbone", "neck"))
    general = None
    known: set[str] = set()
    for module in _modules():
        heads = getattr(module, "HEADS", ())
        known.update(heads)
        if head not in heads:
            continue
        backbones, necks = (getattr(module, limits, None) for limits in ("BACKBONES", "NECKS"))
        if backbones is None and necks is None:
            general = module.translate
        elif backbone in (backbones or (backbone,)) and neck in (necks or (neck,)):
            return module.translate
    if general is None:
        raise UserError(
            f"no network here has OpenMMLab's decode head {head!r} on backbone {backbone!r}; "
            f"decode heads that can be imported: {', '.join(sorted(known))}"
        )
    return general


def _num_classes(head: dict) -> int:
    head = head.get("kernel_generate_head", head)  # K-Net's is around another one
    number, outputs = head.get("num_classes"), head.get("out_channels")
    if not isinstance(number, int) or (outputs not in (None, number) and type_of(head) not in _MASK_HEADS):
        raise UserError(
            f"decode head {type_of(head)} has num_classes={number!r}, "
            f"out_channels={head.get('out_channels')!r}; one logit per class is needed"
        )
    return number


def _normalization(config: dict) -> tuple[list[float], list[float], list[str]]:
    """Return mean, deviation and band names; the file's images are read as RGB everywhere here."""
    steps = [step for step in find_values(config, "pipeline") if isinstance(step, (list, tuple))]
    candidates = [
        config["model"].get("data_preprocessor"),
        config.get("data_preprocessor"),
        config.get("img_norm_cfg"),
        *(step for pipeline in steps for step in pipeline if isinstance(step, dict)),
    ]
    for each in candidates:
        if isinstance(each, dict) and each.get("mean") is not None and each.get("std") is not None:
            mean, std = [float(v) for v in each["mean"]], [float(v) for v in each["std"]]
            # The step of 0.x swaps unless told otherwise, the preprocessor of 1.x only when told.
            rgb = each.get("bgr_to_rgb", each.get("to_rgb", type_of(each) != "SegDataPreProcessor"))
            return mean, std, _band_names(len(mean), rgb)
    bands = _bands(config["model"].get("backbone", {}))
    swapped = any(isinstance(each, dict) and each.get("bgr_to_rgb") for each in candidates[:2])
    return [0.0] * bands, [1.0] * bands, _band_names(bands, swapped)


def _band_names(bands: int, rgb: bool) -> list[str]:
    names = ["red", "green", "blue"] if rgb else ["blue", "green", "red"]
    return names if bands == 3 else [f"band {i + 1}" for i in range(bands)]


def _classes(meta: dict, num_classes: int) -> tuple[list[str], list[list[int]]]:
    dataset = meta.get("dataset_meta") or {}
    names = dataset.get("classes", dataset.get("CLASSES", meta.get("CLASSES")))
    colors = dataset.get("palette", dataset.get("PALETTE", meta.get("PALETTE")))
    if not isinstance(names, (list, tuple)) or len(names) != num_classes:
        names = [f"class {i}" for i in range(num_classes)]
    if not isinstance(colors, (list, tuple)) or len(colors) != num_classes:
        colors = [voc_color(i) for i in range(num_classes)]
    return [str(name) for name in names], [[int(part) for part in color] for color in colors]


def _crop_size(config: dict) -> list[int] | None:
    preprocessor = config["model"].get("data_preprocessor") or config.get("data_preprocessor") or {}
    test = config["model"].get("test_cfg") or {}
    for size in (test.get("crop_size"), preprocessor.get("size"), config.get("crop_size")):
        if isinstance(size, (list, tuple)) and len(size) == 2:
            return [int(size[0]), int(size[1])]
        if isinstance(size, int):
            return [size, size]
    return None
