"""The header of a JPEG, changed so that a decoder stops early: no library's wheels decode a part of one.

ITU-T T.81 (09/92), annex B, https://www.w3.org/Graphics/JPEG/itu-t81.pdf. The rows of a sequential JPEG of
one scan stand one below the other, so the same data with a smaller height is a picture that ends there. Where
a file is anything else (progressive: every scan covers the whole picture), it stays as it is.
"""

_SEQUENTIAL = (0xC0, 0xC1)  # start of frame: baseline and extended, both in Huffman's code
_OTHER_FRAMES = (0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_SCAN = 0xDA
_HEIGHT, _WIDTH, _COMPONENTS = 5, 7, 9  # bytes of a frame header, from its marker on
# Where colours have fewer rows than brightness, a row is mixed from two of theirs, of four rows each at most.
_MARGIN = 8


def without_rows_below(data: bytes, bottom: int, most_pixels: int) -> bytes:
    """Return a JPEG whose first `bottom` rows are the given one's, with few further rows or all of them.

    One of more than `most_pixels` stays as it is.
    """
    frame, scan = _headers(data)
    if frame is None or scan is None or data[scan + 4] != data[frame + _COMPONENTS]:
        return data
    height, width = (int.from_bytes(data[frame + at : frame + at + 2], "big") for at in (_HEIGHT, _WIDTH))
    shorter = bottom + _MARGIN
    if shorter >= height or height * width > most_pixels:
        return data
    return data[: frame + _HEIGHT] + shorter.to_bytes(2, "big") + data[frame + _WIDTH :]


def _headers(data: bytes) -> tuple[int | None, int | None]:
    """Return where the headers of a sequential frame and its first scan start; None where it is not one."""
    place, frame = 2, None
    while place + _COMPONENTS < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in _OTHER_FRAMES:
            break
        if marker in _SEQUENTIAL:
            frame = place
        elif marker == _SCAN:
            return frame, place
        # A marker may be preceded by further bytes 0xFF.
        place += 1 if marker == 0xFF else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None, None
