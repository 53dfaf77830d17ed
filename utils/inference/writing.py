"""Writing of results: palette PNGs, and GeoTIFFs row by row. An unfinished file never has its final name."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from xml.sax.saxutils import escape

import numpy as np
import rasterio
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from utils.files import replacing
from utils.inference.class_map import class_dtype, no_data_value

TILE = 256

Color = tuple[int, int, int]


def write_png(path: Path, picture: np.ndarray | Image.Image) -> None:
    """Write a picture: uint8 (H, W, 3) or anything PIL holds."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    with replacing(path) as part:
        image.save(part, format="PNG")


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


class RowWriter:
    """A tiled GeoTIFF that takes rows from top to bottom; a context manager.

    Rows are gathered to whole rows of tiles, since GDAL would compress a half-filled tile twice. On success
    the file gets its name; on any error, and when rows are missing, nothing stays.

    Args:
        path: the file to write; one that exists is replaced.
        bands: number of bands.
        height: rows.
        width: columns.
        dtype: of the values.
        nodata: value without a class or probability.
        crs: WKT, or None.
        transform: pixel to map coordinates, or None.
        options: further creation options of GDAL's GTiff driver.
    """

    def __init__(
        self,
        path: Path,
        *,
        bands: int,
        height: int,
        width: int,
        dtype: np.dtype,
        nodata: float,
        crs: str | None = None,
        transform: Affine | None = None,
        **options: object,
    ) -> None:
        self.path, self.height = path, height
        self.part = path.with_name(f"{path.name}.part")
        self.rows = np.empty((bands, min(TILE, height), width), dtype)
        self.gathered = self.written = 0
        self.profile = {
            "driver": "GTiff",
            "count": bands,
            "height": height,
            "width": width,
            "dtype": np.dtype(dtype).name,
            "nodata": nodata,
            "crs": CRS.from_wkt(crs) if crs else None,
            "tiled": True,
            "blockxsize": TILE,
            "blockysize": TILE,
            "compress": "deflate",
            "BIGTIFF": "IF_SAFER",
            "INTERLEAVE": "BAND",
            **({} if transform is None else {"transform": transform}),
            **options,
        }

    @property
    def buffer_bytes(self) -> int:
        """Memory of the rows that wait for a whole row of tiles."""
        return self.rows.nbytes

    def __enter__(self) -> "RowWriter":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a plain image has no coordinates
            self.dataset = rasterio.open(self.part, "w", **self.profile)
        try:
            self.describe()  # before the first pixel: GDAL would put a late colour table into a side file
        except BaseException:
            self._discard()
            raise
        return self

    def describe(self) -> None:
        """Write colours and names into the empty file."""

    def write(self, top: int, rows: np.ndarray) -> None:
        """Add rows (bands, h, W) that begin at row `top`, right below those already given."""
        if top != self.written + self.gathered:
            raise ValueError(
                f"rows from {top} on are given; rows from {self.written + self.gathered} are due"
            )
        while rows.shape[1]:
            taken = min(self.rows.shape[1] - self.gathered, rows.shape[1])
            self.rows[:, self.gathered : self.gathered + taken] = rows[:, :taken]
            self.gathered += taken
            rows = rows[:, taken:]
            if self.gathered == self.rows.shape[1] or self.written + self.gathered == self.height:
                self._flush()

    def _flush(self) -> None:
        window = RasterioWindow(0, self.written, self.rows.shape[2], self.gathered)
        self.dataset.write(self.rows[:, : self.gathered], window=window)
        self.written += self.gathered
        self.gathered = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._discard()
            return
        if self.written != self.height:
            self._discard()
            given = self.written + self.gathered
            raise ValueError(f"{self.path} has {self.height} rows; only {given} were given")
        try:
            self.dataset.close()
            self.finish()
        except BaseException:
            self._discard()
            raise

    def finish(self) -> None:
        """Give the closed file its name."""
        os.replace(self.part, self.path)

    def _discard(self) -> None:
        # Closing writes what is left, which may fail again on a full disk; the first error is shown.
        try:
            self.dataset.close()
        except RasterioError:
            pass
        finally:
            self.part.unlink(missing_ok=True)


class ClassMapWriter(RowWriter):
    """A GeoTIFF of class ids with colour table, class names and no-data value.

    The names stand inside the file as tags (`CLASS_0`, ...) and, for the legend of QGIS, as GDAL's category
    names, which the GeoTIFF driver keeps in the side file `NAME.tif.aux.xml`.
    """

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        names: Sequence[str],
        colors: Sequence[Color],
        crs: str | None = None,
        transform: Affine | None = None,
    ) -> None:
        super().__init__(
            path,
            bands=1,
            height=height,
            width=width,
            dtype=class_dtype(len(names)),
            nodata=no_data_value(len(names)),
            crs=crs,
            transform=transform,
        )
        self.names, self.colors = names, colors

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
        """Write the side file, then give the closed file its name."""
        categories = "".join(f"<Category>{escape(name)}</Category>" for name in self.names)
        with replacing(self.path.with_name(f"{self.path.name}.aux.xml")) as part:
            part.write_text(
                f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>'
                "</PAMRasterBand></PAMDataset>\n",
                encoding="utf-8",
            )
        super().finish()


class ScoresWriter(RowWriter):
    """A GeoTIFF with the probability of each class as a float32 band of its name, NaN where invalid."""

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        names: Sequence[str],
        crs: str | None = None,
        transform: Affine | None = None,
    ) -> None:
        super().__init__(
            path,
            bands=len(names),
            height=height,
            width=width,
            dtype=np.dtype(np.float32),
            nodata=np.nan,
            crs=crs,
            transform=transform,
            predictor=3,
            zlevel=1,
        )
        self.names = names

    def describe(self) -> None:
        """Write the class names as band descriptions."""
        for band, name in enumerate(self.names, 1):
            self.dataset.set_band_description(band, name)
