"""Points instead of pixels: places in maps of any resolution.

A point is (x, y) as fractions of the image's width and height, so maps of any resolution can be compared.
From Kirillov et al., "PointRend: Image Segmentation as Rendering", CVPR 2020, https://arxiv.org/abs/1912.08193.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from nets.layers.deformable_attention import sample as sample_places

# Numbers of PointRend and of Mask2Former: candidates per point, and the share that is chosen from them.
OVERSAMPLE, IMPORTANCE = 3, 0.75


def random_points(rows: int, count: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return points (rows, count, 2), uniform over the image, of the type and on the device of `like`."""
    return torch.rand(rows, count, 2, dtype=like.dtype, device=like.device, generator=generator)


def sample(maps: Tensor, points: Tensor, padding: str = "zeros", *, align_corners: bool = False) -> Tensor:
    """Map (N, C, h, w) and points (N, P, 2) to bilinear values (N, C, P).

    With zeros outside it can be differentiated on every device; see `sample` of deformable attention.
    """
    if padding == "zeros" and not align_corners:
        return sample_places(maps, points[:, :, None]).squeeze(3)
    grid = 2 * points[:, :, None] - 1  # (N, P, 1, 2)
    return F.grid_sample(maps, grid, padding_mode=padding, align_corners=align_corners).squeeze(3)


@torch.no_grad()
def choose_points(
    certainty: Callable[[Tensor], Tensor],
    rows: int,
    count: int,
    like: Tensor,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return points (rows, count, 2): most of them where a map is least certain, the rest anywhere.

    Args:
        certainty: maps points (rows, P, 2) to (rows, P); the least certain are chosen.
        rows: maps.
        count: points per map.
        like: has the points' type and device.
        generator: None draws from the global random state.
    """
    chosen = int(IMPORTANCE * count)
    candidates = random_points(rows, OVERSAMPLE * count, like, generator)
    nearest = certainty(candidates).topk(chosen, dim=1, largest=False).indices  # (rows, chosen)
    important = candidates.gather(1, nearest[:, :, None].expand(-1, -1, 2))
    return torch.cat([important, random_points(rows, count - chosen, like, generator)], dim=1)
