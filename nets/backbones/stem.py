"""The first convolution of a pretrained backbone, for images of other bands than red, green and blue."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from nets.errors import UserError

StemInit = Literal["rgb_mean", "random", "repeat"]
STEM_INITS = ("rgb_mean", "random", "repeat")
RGB = 3


def find_stem(backbone: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return name and module of a backbone's first convolution.

    Raises:
        TypeError: it has none.
    """
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise TypeError(f"{type(backbone).__name__} has no convolution")


def adapt_stem(
    weight: Tensor, bands: int, how: Literal["rgb_mean", "repeat"], rgb_bands: Sequence[int] = (0, 1, 2)
) -> Tensor:
    """Return the weight (D, bands, k, k) of a first convolution made of one for C bands (D, C, k, k).

    "rgb_mean": W'_b = s W_c where band b is colour c of a weight for red, green, blue, and the mean of all
    its bands times s elsewhere. "repeat": W'_b = s W_(b mod C).
    s = C / bands, so that the response to equal values in all bands stays what it was (for "repeat" when
    bands is a multiple of C). One or two bands, or a weight for other than three, have no colours:
    "rgb_mean" is the mean in each.

    Args:
        weight: of the given convolution, usually for red, green, blue.
        bands: bands of an image.
        how: see above.
        rgb_bands: bands, from 0, that are red, green and blue.

    Raises:
        UserError: `rgb_bands` are not three different bands of the image.
    """
    given = weight.shape[1]
    scale = given / bands
    if how == "repeat":
        return scale * weight[:, [band % given for band in range(bands)]]
    adapted = weight.mean(dim=1, keepdim=True).repeat(1, bands, 1, 1)
    if bands >= RGB and given == RGB:
        colors = list(rgb_bands)
        if len(set(colors)) != RGB or len(colors) != RGB or not all(0 <= band < bands for band in colors):
            raise UserError(
                f"red, green and blue are said to be bands {colors} (from 0) of {bands}; "
                "three different bands are needed"
            )
        adapted[:, colors] = weight
    return scale * adapted
