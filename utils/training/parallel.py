"""A network on its devices: alone, in DataParallel, or as one of several processes."""

import copy
import math
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from nets.errors import UserError
from utils.data.labels import IGNORE
from utils.devices import place
from utils.distributed import count, everyones

# A block with more parameters is sharded and gathered on its own.
SHARDED_FROM = 1_000_000


def synchronizes(device: torch.device, wanted: str) -> bool:
    """Return whether batch norms take their statistics over all processes.

    Args:
        device: where they are going to be.
        wanted: the flag SYNC_BN, "auto", "on" or "off".

    Raises:
        UserError: "on" where PyTorch's synchronised batch norm, which is for GPUs, does nothing.
    """
    if wanted == "on" and device.type != "cuda":
        raise UserError("--SYNC_BN on is given; it needs GPUs, this run is on the CPU: leave it out")
    return wanted != "off" and count() > 1 and device.type == "cuda"


def synchronize_batch_norm(network: nn.Module, device: torch.device, wanted: str) -> nn.Module:
    """Return the network with synchronised batch norms where `synchronizes` says so."""
    return nn.SyncBatchNorm.convert_sync_batchnorm(network) if synchronizes(device, wanted) else network


def distribute(
    network: nn.Module, devices: list[torch.device], parallel: str, criterion: nn.Module
) -> nn.Module:
    """Return the network on its devices, wrapped as the flag PARALLEL says where there are several.

    FSDP changes the network itself: its parameters become the shards of this process.
    """
    if count() == 1:
        return place(network, devices)
    if parallel == "fsdp":
        return shard(place(network, devices), devices[0])
    idle = without_gradient(network, criterion)
    for parameter in idle:  # the wrapper would wait for their gradients
        parameter.requires_grad = False
    device_ids = [devices[0].index] if devices[0].type == "cuda" else None
    wrapped = nn.parallel.DistributedDataParallel(
        place(network, devices), device_ids=device_ids, gradient_as_bucket_view=True
    )
    for parameter in idle:
        parameter.requires_grad = True
    return wrapped


def without_gradient(network: nn.Module, criterion: nn.Module, side: int = 128) -> list[nn.Parameter]:
    """Return the parameters on which the loss does not depend, found by a small step of a copy."""
    trial = copy.deepcopy(network).train()
    side = math.ceil(max(side, network.min_size) / network.size_divisor) * network.size_divisor
    with torch.random.fork_rng(devices=[]):
        images = torch.randn(2, network.bands, side, side, dtype=network.mean.dtype)
        masks = torch.randint(network.num_classes, (2, side, side))
        loss, _ = copy.deepcopy(criterion).cpu().train()(trial(images), masks)
        loss.backward()
    pairs = zip(network.parameters(), trial.parameters(), strict=True)
    return [own for own, copied in pairs if own.requires_grad and copied.grad is None]


def shard(network: nn.Module, device: torch.device) -> nn.Module:
    """Shard the parameters over the processes: those of large blocks block by block, then the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (count(),))
    for block in large_blocks(network):
        fully_shard(block, mesh=mesh)
    return fully_shard(network, mesh=mesh)


def large_blocks(network: nn.Module) -> list[nn.Module]:
    """Return the members of sequences with many parameters, inner ones first, none of them a sequence."""
    sequences = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    found = [
        block
        for sequence in network.modules()
        if isinstance(sequence, sequences)
        for block in sequence.children()
        if not isinstance(block, sequences) and sum(p.numel() for p in block.parameters()) > SHARDED_FROM
    ]
    return list(dict.fromkeys(reversed(found)))


def load_network(network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Load whole tensors into a network, of which this process may hold shards only."""
    own = network.state_dict()
    sharded = {
        name: _shard_like(own[name], tensor.to(own[name].device))
        if hasattr(own[name], "full_tensor")
        else tensor
        for name, tensor in state.items()
    }
    network.load_state_dict(sharded)


def load_optimizer(optimizer: Optimizer, state: dict) -> None:
    """Load the state of an optimiser, of which this process may hold shards only."""
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        if hasattr(parameter, "full_tensor"):
            for name, value in moments.items():
                if value.shape == parameter.shape and not hasattr(value, "full_tensor"):
                    moments[name] = _shard_like(parameter, value)


def _shard_like(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


class EvenBatches:
    """Labelled batches, followed by some without a label to be counted, as many as the process lacks.

    With shards all processes have to call the network equally often: each call gathers the weights.
    """

    def __init__(self, loader: DataLoader, length: int):
        self.loader, self.length = loader, length
        self.dataset, self.batch_sampler = loader.dataset, loader.batch_sampler

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[dict]:
        yield from self.loader
        for _ in range(self.length - len(self.loader)):
            batch = self.loader.collate_fn([self.loader.dataset[0]])
            batch["mask"].fill_(IGNORE)
            yield batch


def even(loader: DataLoader, parallel: str) -> DataLoader | EvenBatches:
    """Return the batches of a validation, as many in each process where the flag PARALLEL says "fsdp"."""
    if count() == 1 or parallel != "fsdp":
        return loader
    lengths = everyones(torch.tensor([len(loader)]))
    return EvenBatches(loader, int(max(lengths)))
