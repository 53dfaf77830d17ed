"""Parts of a network that are not trained, by name."""

import re
from fnmatch import fnmatchcase

from torch import nn

from nets.errors import UserError
from nets.registry import nearest
from utils.training.optimizers import BATCH_NORM

ALL_NORMS = "batch_norm"


def freeze(network: nn.Module, names: str) -> tuple[nn.Module, ...]:
    """Keep named parts as they are and return the batch norms among them, which have to stay in eval mode.

    Args:
        network: the network.
        names: of modules or parameters, separated by commas, also with "*", as in "backbone.stem,*.norm1";
            "batch_norm" means all of them.

    Raises:
        UserError: a name that nothing has, or nothing would be left to train.
    """
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    norms: dict[int, nn.Module] = {}
    for pattern in filter(None, re.split(r"[,\s]+", names)):
        found = [name for name in [*modules, *parameters] if name and fnmatchcase(name, pattern)]
        if pattern == ALL_NORMS:
            found = [name for name, module in modules.items() if isinstance(module, BATCH_NORM)]
        if not found:
            near = nearest(pattern, [ALL_NORMS, *filter(None, modules)])
            raise UserError(f"--FREEZE {pattern}: no part of this network has that name{near}")
        for name in found:
            if name in parameters:
                parameters[name].requires_grad = False
                continue
            modules[name].requires_grad_(requires_grad=False)
            norms |= {id(part): part for part in modules[name].modules() if isinstance(part, BATCH_NORM)}
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise UserError(f"--FREEZE {names}: nothing is left to be trained; freeze less")
    return tuple(norms.values())
