"""The small file that stands beside an unfinished scene and says how far it is.

It is written whenever the unfinished rasters are known to be on the disk. It stays until the whole run has
ended, so that a run over many scenes leaves out those that were finished.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nets.errors import UserError
from utils.data.raster import RasterInfo
from utils.data.raster_files import is_virtual
from utils.data.source import source_of
from utils.files import replacing

SECONDS = 30.0  # between two checkpoints


@dataclass
class Progress:
    """How far a scene is.

    Attributes:
        rows: rows of the results that are on the disk.
        sizes: bytes of each unfinished raster at that moment, by its final name.
        done: all results have their names.
        totals: pixels of each class in these rows, then those without data.
    """

    rows: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    done: bool = False
    totals: list[int] = field(default_factory=list)


class StateFile:
    """The file of one scene.

    Args:
        path: where it stands.
        settings: plain values that must be the same for the work to be gone on with.
    """

    def __init__(self, path: Path, settings: dict) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))

    def save(self, progress: Progress) -> None:
        """Write the progress; the file is whole at any moment."""
        with replacing(self.path) as part:
            text = json.dumps({"settings": self.settings, "progress": asdict(progress)}, indent=1)
            part.write_text(text, encoding="utf-8")

    def load(self) -> Progress:
        """Return the progress, an empty one where there is no file or one that was damaged.

        Raises:
            UserError: the scene was begun with other settings.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            begun, progress = content["settings"], Progress(**content["progress"])
        except (OSError, ValueError, KeyError, TypeError):
            return Progress()
        other = [name for name in self.settings if begun.get(name) != self.settings[name]]
        if other:
            raise UserError(
                f"{self.path} was begun with another {' and '.join(other)}; repeat the flags of that run, "
                "or start anew without --RESUME"
            )
        return progress

    def remove(self) -> None:
        """Forget the scene."""
        self.path.unlink(missing_ok=True)


def identity(path: Path | str) -> list:
    """Return plain values that change when a file is replaced."""
    if is_virtual(path):
        return [str(path)]
    status = Path(path).stat()
    return [str(Path(path).resolve()), status.st_size, status.st_mtime_ns]


def scene_settings(info: RasterInfo) -> dict:
    """Return what of a scene must not change."""
    extra = [identity(piece.path) for piece in source_of(info) if piece.path != info.path]
    scene = {"scene": [*identity(info.path), info.height, info.width]}
    return {**scene, "extra images": extra} if extra else scene
