"""A tiled GeoTIFF that grows from top to bottom and can be gone on with after an interruption."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from utils.data.ground_control import GroundControl
from utils.inference.cog import overviews_of, write_cog
from utils.inference.tiles import require_tiles

TILE = 256


class RowWriter:
    """A tiled GeoTIFF that takes blocks, row by row of blocks from top to bottom; a context manager.

    Rows are gathered to whole rows of tiles, since GDAL would compress a half-filled tile twice. On success
    the file gets its name; on any error, and when rows are missing, nothing stays, unless `keep` is set.

    The empty file is made first and then always opened to go on with, so that a file that was interrupted has
    the same bytes in the end as one that was not.

    Args:
        path: the file to write; one that exists is replaced.
        bands: number of bands.
        height: rows.
        width: columns.
        dtype: of the values; float16 is written as a TIFF of 16-bit floats.
        nodata: value without a class or probability.
        crs: WKT, or None.
        transform: pixel to map coordinates, or None.
        ground: ground control points where there is no transform, or None.
        cog: lay the finished file out as a cloud-optimised GeoTIFF, with overviews.
        flushed: called with (top, rows (bands, h, W)) when rows are written.
        options: further creation options of GDAL's GTiff driver.
    """

    resampling = "average"

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
        ground: GroundControl | None = None,
        cog: bool = False,
        flushed: Callable[[int, np.ndarray], object] | None = None,
        **options: object,
    ) -> None:
        self.path, self.height, self.width, self.cog, self.flushed = path, height, width, cog, flushed
        self.part = path.with_name(f"{path.name}.part")
        self.rows = np.full((bands, min(TILE, height), width), nodata, dtype)
        self.complete = self.written = self.secured = 0
        self.keep = False
        self.dataset: rasterio.io.DatasetWriter | None = None
        half = np.dtype(dtype) == np.float16
        self.profile = {
            "driver": "GTiff",
            "count": bands,
            "height": height,
            "width": width,
            "dtype": "float32" if half else np.dtype(dtype).name,
            "nodata": nodata,
            "crs": CRS.from_wkt(crs) if crs else None,
            "tiled": True,
            "blockxsize": TILE,
            "blockysize": TILE,
            "compress": "deflate",
            "BIGTIFF": "IF_SAFER",
            "INTERLEAVE": "BAND",
            **({"NBITS": 16} if half else {}),
            **({} if transform is None else {"transform": transform}),
            **({} if ground is None else ground.profile()),
            **options,
        }

    @property
    def _laid_out(self) -> Path:
        return self.path.with_name(f"{self.path.name}.cog.part")

    @property
    def buffer_bytes(self) -> int:
        """Memory of the rows that wait for a whole row of tiles."""
        return self.rows.nbytes

    def __enter__(self) -> "RowWriter":
        self.start()
        return self

    def start(self, written: int = 0, size: int | None = None) -> None:
        """Make the file, or go on with one that had `size` bytes when the rows above `written` were written.

        Without a size `written` is the first row of a new file that shall only hold a part of the rows.
        """
        if size is not None:
            os.truncate(self.part, size)  # what was written after the last checkpoint
        else:
            self._create()
        self.written = self.complete = self.secured = written
        self._open()

    def _create(self) -> None:
        for file in (overviews_of(self.part), self._laid_out):  # of a run that was killed: not of this file
            file.unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a plain image has no coordinates
            # Closing a file that may not be sparse would fill its tiles.
            self.dataset = rasterio.open(self.part, "w", **self.profile, SPARSE_OK=True)
        try:
            self.describe()  # before the first pixel: GDAL would put a late colour table into a side file
            self.dataset.close()
        except BaseException:
            self.discard()
            raise

    def _open(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            self.dataset = rasterio.open(self.part, "r+", driver="GTiff")

    def describe(self) -> None:
        """Write colours and names into the empty file."""

    def write(self, top: int, rows: np.ndarray) -> None:
        """Add rows (bands, h, W) that begin at row `top`, right below those already given."""
        if top != self.complete:
            raise ValueError(f"rows from {top} on are given; rows from {self.complete} are due")
        self.put(top, 0, rows)
        self.advance(top + rows.shape[1])

    def put(self, top: int, left: int, block: np.ndarray) -> None:
        """Place a block (bands, h, w) below the complete rows; what no block covers is no-data."""
        first, last = top - self.written, top - self.written + block.shape[1]
        if last > self.rows.shape[1]:
            more = np.full((len(self.rows), last - self.rows.shape[1], self.width), self.profile["nodata"])
            self.rows = np.concatenate([self.rows, more.astype(self.rows.dtype)], axis=1)
        self.rows[:, first:last, left : left + block.shape[2]] = block

    def advance(self, bottom: int) -> None:
        """Take all rows above `bottom` for complete, and write those that fill rows of tiles."""
        self.complete = bottom
        last = self.height if bottom == self.height else bottom // TILE * TILE
        while self.written < last:
            self._flush(min(TILE, last - self.written))

    def _flush(self, count: int) -> None:
        rows = self.rows[:, :count]
        if rows.shape[1] < count:  # rows that no block reached
            rows = np.full((len(rows), count, self.width), self.profile["nodata"], rows.dtype)
        window = RasterioWindow(0, self.written, self.width, count)
        for band, values in enumerate(rows, 1):  # one by one: float16 is widened on the way
            self.dataset.write(values.astype(self.profile["dtype"], copy=False), band, window=window)
        if self.flushed:
            self.flushed(self.written, rows)
        self.written += count
        kept = self.rows.shape[1] - count
        if kept > 0:
            for values in self.rows:  # band by band: numpy copies what overlaps
                values[:kept] = values[count:].copy()
        self.rows[:, max(kept, 0) :] = self.profile["nodata"]

    def checkpoint(self) -> int:
        """Bring all written rows to the disk and return the size of the file in bytes."""
        self._secure()
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
        self._open()
        return size

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
            self.finish()
        except BaseException:
            self.discard()
            raise

    def close(self) -> None:
        """Close the complete file, which keeps its temporary name."""
        if self.written != self.height:
            raise ValueError(f"{self.path} has {self.height} rows; only {self.complete} were given")
        self._secure()

    def _secure(self) -> None:
        """Close the file and make sure that the rows written since the last time are in it."""
        self.dataset.close()
        require_tiles(self.part, self.secured, self.written)
        self.secured = self.written

    def finish(self) -> None:
        """Give the closed file its name; nothing happens where it has it already."""
        if not self.part.exists():
            return
        if self.cog:
            write_cog(self.part, self._laid_out, self.resampling, predictor="predictor" in self.profile)
            os.replace(self._laid_out, self.path)
            self.part.unlink()
        else:
            os.replace(self.part, self.path)

    def discard(self) -> None:
        """Close the file; remove it unless it is to be kept."""
        # Closing writes what is left, which may fail again on a full disk; the first error is shown.
        try:
            if self.dataset is not None:
                self.dataset.close()
        except RasterioError:
            pass
        finally:
            if not self.keep:
                self.part.unlink(missing_ok=True)
