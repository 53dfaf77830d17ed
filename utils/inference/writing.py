"""Writing of results: palette PNGs, and GeoTIFFs row by row. An unfinished file never has its final name."""

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from PIL import Image

from utils.data.labels import Classes
from utils.data.raster_files import is_whole_png
from utils.files import replacing
from utils.inference.class_map import class_dtype, no_data_value
from utils.inference.row_writer import RowWriter
from utils.inference.scores import QUANTA, Scores
from utils.inference.tiles import disk_is_full

Color = tuple[int, int, int]
# GDAL would call three bands of bytes red, green and blue, and a fourth alpha, by which programs then weight.
NO_COLORS = "MINISBLACK"


def write_png(path: Path, picture: np.ndarray | Image.Image) -> None:
    """Write a picture: uint8 (H, W, 3) or anything PIL holds."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    with replacing(path) as part:
        # Level 6, the default, takes as long as a light network and saves a tenth.
        image.save(part, format="PNG", compress_level=2)


def write_class_png(path: Path, class_map: np.ndarray, colors: Sequence[Color]) -> None:
    """Write a class map (H, W) as PNG: class ids as indices of a palette, no-data grey.

    More than 255 classes do not fit a palette and become 16-bit grey values without colours.
    """
    image = Image.fromarray(class_map.astype(class_dtype(len(colors)), copy=False))
    if image.mode == "L":
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(colors)] = colors
        greys = [(level,) * 3 for level in (128, 160, 96)]
        palette[255] = next((grey for grey in greys if grey not in set(map(tuple, colors))), greys[0])
        image.putpalette(palette.tobytes())
    write_png(path, image)


class ClassMapWriter(RowWriter):
    """A GeoTIFF of class ids with colour table, class names and no-data value.

    The names stand inside the file as tags (`CLASS_0`, ...) and, for the legend of QGIS, as GDAL's category
    names, which the GeoTIFF driver keeps in the side file `NAME.tif.aux.xml`.

    Args:
        path: the file to write.
        names: of the classes.
        colors: of the classes.
        png: turn the finished file into a PNG of this name.
        more: what `RowWriter` takes.
    """

    resampling = "mode"

    def __init__(
        self,
        path: Path,
        *,
        names: Sequence[str],
        colors: Sequence[Color],
        png: Path | None = None,
        **more: object,
    ) -> None:
        count = len(names)
        super().__init__(path, bands=1, dtype=class_dtype(count), nodata=no_data_value(count), **more)
        self.names, self.colors, self.png = names, colors, png

    def describe(self) -> None:
        """Write the colour table and the class names into the empty file."""
        table = {index: (*color, 255) for index, color in enumerate(self.colors)}
        self.dataset.write_colormap(1, {**table, int(self.profile["nodata"]): (0, 0, 0, 0)})
        self.dataset.set_band_description(1, "class")
        self.dataset.update_tags(1, **{f"CLASS_{index}": name for index, name in enumerate(self.names)})

    def write(self, top: int, rows: np.ndarray) -> None:
        """Add rows (h, W) of class ids that begin at row `top`."""
        super().write(top, rows[None])

    def finish(self) -> None:
        """Write the side file, then give the closed file its name; or turn it into a PNG."""
        if self.png is not None:
            self._finish_png()
            return
        categories = "".join(f"<Category>{escape(name)}</Category>" for name in self.names)
        with replacing(self.path.with_name(f"{self.path.name}.aux.xml")) as part:
            part.write_text(
                f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>'
                "</PAMRasterBand></PAMDataset>\n",
                encoding="utf-8",
            )
        super().finish()

    def _finish_png(self) -> None:
        """Copy the file row by row: a scene need not fit in memory to become a PNG."""
        if not self.part.exists():
            return
        # Without it GDAL would keep the names in a side file of the temporary name.
        with replacing(self.png) as picture, rasterio.Env(GDAL_PAM_ENABLED=False):
            rasterio.shutil.copy(self.part, picture, driver="PNG")
            if not is_whole_png(picture):
                raise disk_is_full(picture)
        self.part.unlink()


class PresenceWriter(RowWriter):
    """A GeoTIFF of several labels: a band for each class, 1 where it is present, 0 where not, and no-data.

    Args:
        path: the file to write.
        names: of the classes, which the bands are described by.
        more: what `RowWriter` takes.
    """

    resampling = "mode"
    png = None  # which has no names, and at most four bands

    def __init__(self, path: Path, *, names: Sequence[str], **more: object) -> None:
        count = len(names)
        super().__init__(path, bands=count, dtype=class_dtype(count), nodata=no_data_value(count), **more)
        self.names, self.profile["photometric"] = names, NO_COLORS

    def describe(self) -> None:
        """Write the names of the bands into the empty file."""
        for band, name in enumerate(self.names, 1):
            self.dataset.set_band_description(band, name)


def map_writer(
    path: Path, classes: Classes, *, png: Path | None = None, **more: object
) -> ClassMapWriter | PresenceWriter:
    """Return what writes the class map of these classes.

    Args:
        path: the file to write.
        classes: names and colours.
        png: turn the finished file into a PNG of this name; not possible of several labels.
        more: what `RowWriter` takes.
    """
    if classes.multilabel:
        return PresenceWriter(path, names=classes.names, **more)
    return ClassMapWriter(path, names=classes.names, colors=classes.colors, png=png, **more)


class ScoresWriter(RowWriter):
    """A GeoTIFF of probabilities, confidence or entropy; see `Scores` for the values.

    Args:
        path: the file to write.
        scores: what is written, and in which type.
        names: of the classes.
        more: what `RowWriter` takes.
    """

    def __init__(self, path: Path, *, scores: Scores, names: Sequence[str], **more: object) -> None:
        bands = scores.bands(names)
        predictor = 2 if scores.dtype == "uint8" else 3
        super().__init__(
            path, bands=len(bands), dtype=scores.dtype, nodata=scores.nodata, predictor=predictor, **more
        )
        self.scores, self.bands = scores, bands
        self.profile["photometric"] = NO_COLORS

    def describe(self) -> None:
        """Write names, and the scale of whole numbers."""
        for band, name in enumerate(self.bands, 1):
            self.dataset.set_band_description(band, name)
        if self.scores.dtype == "uint8":
            self.dataset.scales = (1 / QUANTA,) * len(self.bands)
