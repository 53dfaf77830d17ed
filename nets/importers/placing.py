"""Weights of another project under our names and into our network: nothing left over, nothing missing."""

import re

from torch import Tensor

from nets.errors import UserError
from nets.segmentation_model import SegmentationNetwork

Rules = list[tuple[str, str | None]]


class UnplacedError(UserError):
    """Tensors of a checkpoint have no place in the network; `names` are all of them."""

    def __init__(self, names: list[str]):
        super().__init__(f"tensors of the checkpoint without a place in the network: {_some(names)}")
        self.names = names


def rename(state_dict: dict[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Return the weights under the names that the rules give.

    Raises:
        UserError: a tensor that no rule places, or two that are placed alike.
    """
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    renamed: dict[str, Tensor] = {}
    lost = []
    for key, tensor in state_dict.items():
        found = ((match, new) for pattern, new in compiled if (match := pattern.match(key)))
        match, replacement = next(found, (None, None))
        if match is None:
            lost.append(key)
        elif replacement is not None:
            name = match.expand(replacement) + key[match.end() :]
            if name in renamed:
                raise UserError(f"tensor {key} of the checkpoint has the place {name} that another has taken")
            renamed[name] = tensor
    if lost:
        raise UnplacedError(lost)
    return renamed


def place_weights(
    network: SegmentationNetwork, state_dict: dict[str, Tensor], *, partial: bool = False
) -> list[str]:
    """Load weights into a network whose every tensor but the normalisation they must fill, and no other.

    Args:
        network: receives the weights.
        state_dict: by our names.
        partial: load what fits.

    Returns:
        One line per tensor that did not fit, which `partial` allows.

    Raises:
        UserError: a tensor is left over, missing or of another shape.
    """
    own = {key: value for key, value in network.state_dict().items() if key not in ("mean", "std")}
    left = [key for key in state_dict if key not in own]
    # Very old files do not count batches; eval does not need the count.
    missing = [key for key in own if key not in state_dict and not key.endswith("num_batches_tracked")]
    differ = [key for key in state_dict if key in own and state_dict[key].shape != own[key].shape]
    if not partial:
        if left:
            raise UnplacedError(left)
        if missing:
            raise UserError(f"tensors of the network that the checkpoint lacks: {_some(missing)}")
        if differ:
            shapes = f"{tuple(state_dict[differ[0]].shape)} for {tuple(own[differ[0]].shape)}"
            raise UserError(f"tensors of the checkpoint have other shapes: {_some(differ)} ({shapes})")
    fitting = {key: value for key, value in state_dict.items() if key in own and key not in differ}
    network.load_state_dict(fitting, strict=False)
    return [
        *(f"{key}: this network has no such tensor" for key in left),
        *(f"{key}: not in the file, stays at its start" for key in missing),
        *(
            f"{key}: {tuple(state_dict[key].shape)} in the file, {tuple(own[key].shape)} here"
            for key in differ
        ),
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
