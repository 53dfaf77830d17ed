"""Which bands are red, green and blue."""

import re
from collections.abc import Sequence

# the second form is Sentinel-2's and Landsat 8's number of the band
_BAND_WORDS = (("red", "b04", "b4"), ("green", "b03", "b3"), ("blue", "b02", "b2"))
_OTHER_REDS = ("edge", "infra", "infrared", "rededge")


def rgb_bands(bands: int, band_names: Sequence[str | None] = ()) -> tuple[int, ...]:
    """Return which bands make the picture: three indices (red, green, blue), or one for grey.

    Three bands are red, green, blue. Of more bands, those whose names say so are taken ("red", "B04 - red"),
    else the first three. One or two bands give the first one as grey.
    """
    if bands < 3:
        return (0,)
    if bands > 3:
        found = [_find_band(words, band_names) for words in _BAND_WORDS]
        if None not in found:
            return tuple(found)
    return (0, 1, 2)


def rgb_order(bands: int, band_names: Sequence[str | None]) -> tuple[int, int, int] | None:
    """Return which bands are red, green and blue where there are just these three, by their names."""
    found = [_find_band(words, band_names) for words in _BAND_WORDS]
    return tuple(found) if bands == 3 and None not in found and len(set(found)) == 3 else None


def _find_band(words: tuple[str, ...], band_names: Sequence[str | None]) -> int | None:
    for word in words:
        for index, name in enumerate(band_names):
            parts = re.findall(r"[a-z]+\d*|\d+", (name or "").lower())
            if word in parts and not any(other in parts for other in _OTHER_REDS):
                return index
    return None
