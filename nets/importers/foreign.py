"""A network out of another project's file, recognised by what is in the file and not by its name.

OpenMMLab's checkpoints and Hugging Face's folders say in words what they hold. Files of torchvision, of
segmentation_models.pytorch and of authors who build on OpenMMLab but leave its configuration out are bare
weights, known by names and shapes of their tensors.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from nets.errors import UserError
from nets.importers.about import describe_import
from nets.importers.eomt_authors import is_eomt, read_eomt_authors
from nets.importers.huggingface import read_facts, read_huggingface
from nets.importers.openmmlab import describe_tensors, is_openmmlab, read_openmmlab, read_tensors
from nets.importers.placing import UnplacedError, place_weights
from nets.importers.smp_dpt import is_smp_dpt, read_smp_dpt
from nets.importers.smp_models import is_smp, read_smp
from nets.importers.torchvision_models import is_torchvision, read_torchvision
from nets.importers.u2net_weights import is_u2net, read_u2net
from nets.importers.weight_files import weights_in
from nets.registry import create_model
from nets.segmentation_model import SegmentationNetwork

# Names that only the ends of classification networks have (torchvision, timm, DDRNet's authors).
CLASSIFICATION_ENDS = (
    "fc.weight",
    "head.weight",
    "head.fc.weight",
    "linear.weight",
    "classifier.weight",
    "classifier.6.weight",
)
# Source, whether weights are of such a network, and what makes blueprint and weights of ours of them, with
# what is known beside them where there is a third.
PLAIN = (
    ("torchvision", is_torchvision, read_torchvision),
    ("U-2-Net", is_u2net, read_u2net),
    ("the authors of eomt", is_eomt, read_eomt_authors),
    ("segmentation_models.pytorch", is_smp_dpt, read_smp_dpt),
)


@dataclass(frozen=True)
class Foreign:
    """What a file of another project holds.

    Attributes:
        source: the project.
        blueprint: of our network.
        weights: by our names.
        facts: arguments of `describe_import`.
        unplaced: tensors of the file that have no place in our network.
    """

    source: str
    blueprint: dict
    weights: dict[str, Tensor]
    facts: dict = field(default_factory=dict)
    unplaced: tuple[str, ...] = ()


def is_known(content: dict) -> bool:
    """Return whether the project that a file is from is known here."""
    return _reader(content) is not None


def load_foreign(content: dict, path: object = "the file") -> SegmentationNetwork:
    """Build the network of an opened file of another project, with its weights, in eval mode.

    Args:
        content: as `read_weight_file` returns it.
        path: named in errors.

    Returns:
        The network; `network.about` says what is known of classes, bands and normalisation, and under
        "assumed" what the file did not say.

    Raises:
        UserError: a file of no known project, of a network that is not here, or tensors that do not fit.
    """
    return build_foreign(read_foreign(content, path))[0]


def read_foreign(content: dict, path: object = "the file", *, partial: bool = False) -> Foreign:
    """Translate an opened file of another project.

    Args:
        content: as `read_weight_file` returns it.
        path: named in errors.
        partial: leave out tensors that have no place, instead of an error.

    Raises:
        UserError: as `load_foreign`.
    """
    reader = _reader(content)
    if reader is None:
        raise UserError(f"{path} {_what_it_is(weights_in(content))}")
    unplaced: list[str] = []
    while True:
        try:
            return replace(reader(content), unplaced=tuple(unplaced))
        except UnplacedError as error:
            if not partial:
                raise
            unplaced += error.names
            state = {key: value for key, value in weights_in(content).items() if key not in error.names}
            content = {**content, "state_dict": state}


def build_foreign(foreign: Foreign, *, partial: bool = False) -> tuple[SegmentationNetwork, list[str]]:
    """Return the network in eval mode, and one line per tensor that did not fit (see `place_weights`)."""
    network = create_model(foreign.blueprint["name"], **foreign.blueprint["options"])
    left_out = place_weights(network, foreign.weights, partial=partial)
    describe_import(network, foreign.source, **foreign.facts)
    return network.eval(), left_out


def _reader(content: dict) -> Callable[[dict], Foreign] | None:
    state = weights_in(content)
    if is_openmmlab(content):
        return _openmmlab
    if isinstance(content.get("config"), dict) and "model_type" in content["config"]:
        return _hugging_face
    for source, recognised, read in PLAIN:
        if recognised(state):
            return functools.partial(_plain, source, read)
    if is_smp(state):
        return _smp
    if describe_tensors(state) is not None:
        return _told_by_tensors
    return None


def _plain(source: str, read: Callable[[dict], tuple], content: dict) -> Foreign:
    return Foreign(source, *read(weights_in(content)))


def _openmmlab(content: dict) -> Foreign:
    imported = read_openmmlab(content)
    return Foreign("OpenMMLab", imported.blueprint, imported.state_dict, imported.facts)


def _told_by_tensors(content: dict) -> Foreign:
    blueprint, weights, facts = read_tensors(weights_in(content))
    return Foreign(f"the authors of {blueprint['name']}", blueprint, weights, facts)


def _hugging_face(content: dict) -> Foreign:
    config = content["config"]
    facts = read_facts(config, content.get("preprocessor", {}))
    return Foreign("Hugging Face", *read_huggingface(config, content["state_dict"]), facts)


def _smp(content: dict) -> Foreign:
    config = content.get("config")  # of a folder
    config = config if isinstance(config, dict) else {}
    return Foreign("segmentation_models.pytorch", *read_smp(weights_in(content), config=config))


def _what_it_is(state: dict[str, Tensor]) -> str:
    """Return what can be said of weights from which no segmentation network can be built."""
    if not state:
        return "holds no weights; give a checkpoint"
    if any(name in state for name in CLASSIFICATION_ENDS):
        return (
            "holds the weights of a classification network, which are those of a backbone alone: train with "
            "--PRETRAIN_BACKBONE FILE and the --BACKBONE_TYPE of that name"
        )
    shown = ", ".join(list(state)[:3])
    return (
        f"is a checkpoint of another kind (no blueprint in it; {len(state)} tensors: {shown}, ...): it has "
        "no configuration of OpenMMLab or Hugging Face and no names of torchvision or "
        "segmentation_models.pytorch; where you know the network, train from it with --PRETRAIN_MODEL FILE "
        "and the --MODEL_TYPE"
    )
