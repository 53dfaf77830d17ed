"""The text of `--BAND_INDEX`; nothing here imports torch or rasterio."""


def parse_band_index(text: str) -> tuple[str, ...]:
    """Return the words of "4,3,2" or "red,nir".

    Raises:
        ValueError: A word is empty or stands twice, or a number is below 1.
    """
    words = tuple(word.strip() for word in text.split(","))
    if "" in words:
        raise ValueError(f"{text!r} is given; numbers from 1 on or names like 4,3,2 or red,nir are wanted")
    for place, word in enumerate(words):
        if word.lstrip("+-").isdecimal() and int(word) < 1:
            raise ValueError(f"{text!r} is given; bands are counted from 1, as GDAL and QGIS do")
        if _key(word) in map(_key, words[:place]):
            raise ValueError(f"{text!r} names band {word} twice; each band can be taken once")
    return words


def _key(word: str) -> str | int:
    return int(word) if word.isdecimal() else word.casefold()
