"""Pretrained weights of backbones: from timm and torchvision when they are asked for, or from a file."""

import math
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
import timm
import torch
import torchvision
from timm.layers import resample_abs_pos_embed, resample_patch_embed, resize_rel_pos_bias_table
from torch import Tensor, nn

from nets.backbones.catalogue import find_entry, is_backbone
from nets.backbones.stem import RGB, STEM_INITS, StemInit, adapt_stem, find_stem
from nets.errors import UserError
from nets.importers.weight_files import read_weight_file, weights_in

IMAGENET_STD = (0.229, 0.224, 0.225)
GOOGLENET_STD = (0.5, 0.5, 0.5)
# What training programs put in front of the names of weights.
PREFIXES = re.compile(r"^((module|backbone|encoder|model|body)\.)+")
REACH_SECONDS = 10


def load_pretrained(
    backbone: nn.Module,
    source: str | Path,
    *,
    stem_init: StemInit = "rgb_mean",
    rgb_bands: Sequence[int] = (0, 1, 2),
) -> list[str]:
    """Load weights into a backbone; whatever does not fit keeps its start.

    The first convolution is made for the backbone's bands (see `adapt_stem`). ImageNet's weights expect bands
    divided by the deviations that the library states; here images are divided by their own deviation, so
    those of another convention than ImageNet's are rescaled.

    Args:
        backbone: as `create_backbone` builds it.
        source: "imagenet" (through timm or torchvision: the only thing here that may download), or a .pth or
            .safetensors file with the backbone's weights, by timm's, torchvision's, OpenMMLab's, the
            authors' or our names.
        stem_init: what the first convolution starts from.
        rgb_bands: bands, from 0, that are red, green and blue.

    Returns:
        One line per tensor that did not fit.

    Raises:
        UserError: no such weights, no internet, an unreadable file, or weights of another network.
    """
    if stem_init not in STEM_INITS:
        raise UserError(f"stem_init={stem_init} is given; allowed: {', '.join(STEM_INITS)}")
    if str(source).lower() == "imagenet":
        donor = _imagenet(backbone.name)
    else:
        # The importers build on the backbones, so they are imported where they are needed.
        from nets.importers.backbone_files import our_names

        donor = our_names(backbone.name, read_weights(Path(source)))
    given = {plain_name(key): value for key, value in donor.items()}
    own = backbone.state_dict()
    placed, left_out = _place(given, backbone, stem_init, rgb_bands)
    expected = [key for key in own if key.startswith(_pretrained_part(backbone))]
    if len(placed) < len(expected) / 2:
        raise UserError(
            f"--PRETRAIN_BACKBONE {source} holds weights of another network than {backbone.name}: "
            f"{len(placed)} of {len(expected)} tensors fit; its tensors are {', '.join(list(donor)[:3])}, ..."
        )
    backbone.load_state_dict(placed, strict=False)
    return left_out


def _place(
    given: dict[str, Tensor], backbone: nn.Module, stem_init: StemInit, rgb_bands: Sequence[int]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return what fits into the backbone by its names, and one line for each tensor that does not."""
    stem_name, stem = find_stem(backbone)
    own = backbone.state_dict()
    placed, left_out = {}, [f"{stem_name}.weight: left random"] if stem_init == "random" else []
    for key, tensor in own.items():
        value = given.get(plain_name(key))
        if value is None:
            if not key.endswith("num_batches_tracked") and key.startswith(_pretrained_part(backbone)):
                left_out.append(f"{key} {tuple(tensor.shape)}: not among the pretrained weights")
            continue
        if key == f"{stem_name}.weight":
            if "patch_embed" in key and value.shape[-2:] != tensor.shape[-2:]:
                value = resample_patch_embed(value, list(tensor.shape[-2:]))  # patches of another size
            value = _stem(value, stem, stem_init, rgb_bands)
        elif key.endswith("pos_embed") and value.shape != tensor.shape:
            value = _resize_positions(value, tensor)
        elif key.endswith("relative_position_bias_table") and value.shape != tensor.shape:
            value = _resize_distances(value, tensor, backbone)
        if value.shape != tensor.shape:
            left_out.append(f"{key}: {tuple(value.shape)} given, {tuple(tensor.shape)} needed")
            continue
        placed[key] = value
    return placed, left_out


def _pretrained_part(backbone: nn.Module) -> str:
    """Return the beginning of the names of what files of the backbone's name hold; the rest starts anew."""
    return getattr(backbone, "pretrained_part", "")


def _stem(given: Tensor, stem: nn.Conv2d, how: StemInit, rgb_bands: Sequence[int]) -> Tensor:
    """Return the weight of the first convolution."""
    if how == "random":
        return stem.weight.detach()
    if given.shape[1] == stem.in_channels != RGB:
        return given  # of an earlier run on these bands
    return adapt_stem(given, stem.in_channels, how, rgb_bands)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .pth or .safetensors file by their names.

    Raises:
        UserError: no such file, not one of these, or no weights in it.
    """
    if not path.is_file():
        raise UserError(
            f"--PRETRAIN_BACKBONE {path}: no such file; allowed: imagenet, none, a .pth or .safetensors file"
        )
    tensors = weights_in(read_weight_file(path))
    if not tensors:
        raise UserError(
            f"--PRETRAIN_BACKBONE {path}: there are no weights in it; save the state_dict by torch.save"
        )
    inside = {key: value for key, value in tensors.items() if "backbone." in key}
    return inside or tensors  # of a whole network only the backbone


def _imagenet(name: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of a backbone, its first convolution for bands of deviation 1.

    Raises:
        UserError: nobody offers them, or they cannot be fetched.
    """
    if not is_backbone(name):
        raise UserError(
            f"--PRETRAIN_BACKBONE imagenet: {name}'s own encoder has no pretrained weights; leave the flag "
            "out, or give a classification network where the family takes one, as --BACKBONE_TYPE resnet50"
        )
    entry = find_entry(name)
    library = entry.weights if entry is not None else "timm"
    network = (entry.pretrained_name or entry.network) if entry is not None else name
    if library is None or (library == "timm" and not timm.is_model_pretrained(network)):
        raise UserError(
            f"neither timm nor torchvision has ImageNet weights of {name}; give a file by "
            "--PRETRAIN_BACKBONE PATH, or train it from random weights"
        )
    if library == "timm":
        return _from_timm(network)
    try:
        donor = torchvision.models.get_model(network, weights="IMAGENET1K_V1")
    except OSError as error:
        raise _no_internet(name, error) from error
    return _rescaled(donor, GOOGLENET_STD if network == "googlenet" else IMAGENET_STD)


def _from_timm(network: str) -> dict[str, Tensor]:
    config = timm.get_pretrained_cfg(network)
    if config is not None and config.hf_hub_id and not _is_cached(config.hf_hub_id):
        _check_reach(network)
    try:
        donor = timm.create_model(network, pretrained=True)
    except OSError as error:
        raise _no_internet(network, error) from error
    return _rescaled(donor, donor.pretrained_cfg["std"])


def _is_cached(repository: str) -> bool:
    names = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(huggingface_hub.try_to_load_from_cache(repository, name), str) for name in names)


def _check_reach(network: str) -> None:
    """Ask for the host once: the library itself would try again and again for most of a minute."""
    request = urllib.request.Request(huggingface_hub.constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        raise _no_internet(network, error) from error


def _no_internet(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split()).strip("<>")
    return UserError(
        f"the ImageNet weights of {name} cannot be fetched ({reason[:120]}); without internet give a file of "
        "its weights by --PRETRAIN_BACKBONE PATH, or --PRETRAIN_BACKBONE none"
    )


def _rescaled(donor: nn.Module, std: Sequence[float]) -> dict[str, Tensor]:
    name, _ = find_stem(donor)
    state = donor.state_dict()
    # In place of (x - m) / std the network will see (x - m) / deviation of the data; ImageNet's stands for
    # it.
    ratio = torch.tensor(IMAGENET_STD) / torch.tensor(std)
    state[f"{name}.weight"] = state[f"{name}.weight"] * ratio[:, None, None]
    return state


def plain_name(key: str) -> str:
    """Return a tensor's name as the library's networks and our wrappers agree on it."""
    key = PREFIXES.sub("", key)
    # torchvision's networks stand here in numbered parts, each module under its own name.
    key = re.sub(r"^parts\.\d+\.(?=[a-z])", "", key)
    # BEiT's names of what stands elsewhere in timm's other transformers, and here.
    key = re.sub(r"\.gamma_(\d)$", r".ls\1.gamma", key)
    key = re.sub(r"\.attn\.([qv])_bias$", r".attn.qkv.\1_bias", key)
    # timm's feature networks join the names of nested modules by underscores.
    return key.replace(".", "_")


def _resize_positions(given: Tensor, own: Tensor) -> Tensor:
    """Return a position embedding (1, N, D) for another square grid of patches."""
    old, new = math.isqrt(given.shape[1]), math.isqrt(own.shape[1])
    prefix = own.shape[1] - new**2
    if prefix > 1 or given.shape[-1] != own.shape[-1]:
        return given
    class_token, patches = given[:, : given.shape[1] - old**2], given[:, given.shape[1] - old**2 :]
    resized = resample_abs_pos_embed(patches, [new, new], [old, old], num_prefix_tokens=0)
    return torch.cat([class_token[:, :prefix], resized], dim=1) if prefix else resized


def _resize_distances(given: Tensor, own: Tensor, backbone: nn.Module) -> Tensor:
    """Return a BEiT's table of relative positions (L, heads) for another grid, as its authors do it."""
    grid = getattr(backbone, "grid", None)
    if grid is None or given.shape[1] != own.shape[1]:
        return given
    return resize_rel_pos_bias_table(given, new_window_size=grid, new_bias_shape=tuple(own.shape))
