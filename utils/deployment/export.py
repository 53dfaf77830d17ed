"""From a network to a checked file."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from nets.errors import UserError
from utils.deployment.check import Difference, ExportError, check
from utils.deployment.formats import Format
from utils.deployment.ties import unpools
from utils.files import replacing, try_to_write


def output_path(given: str | None, weights: str, chosen: Format) -> Path:
    """Return the file to write: the given one, or one beside the weights.

    Raises:
        UserError: it has another format's ending, or cannot be written.
    """
    path = Path(given) if given else Path(weights).with_suffix(chosen.ending)
    if path.suffix.lower() != chosen.ending:
        raise UserError(f"--OUTPUT {path} is given; {chosen.title} files end in {chosen.ending}")
    if Path(weights).suffix.lower() in (chosen.ending, ".onnx"):
        raise UserError(f"--WEIGHTS {weights} is an exported file already; give the checkpoint")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"--OUTPUT {path} cannot be written; give a file in a folder that exists")
    try:
        try_to_write(path.absolute().parent)
    except OSError as error:
        raise UserError(
            f"--OUTPUT {path} cannot be written ({error.strerror}); give a file in another folder"
        ) from error
    return path


def export(
    network: nn.Module,
    chosen: Format,
    path: Path,
    image: str | Path | None = None,
    tell: Callable[[Difference], object] | None = None,
) -> list[Difference]:
    """Write a network, run the file against it, and only then give the file its name.

    Args:
        network: in eval mode, on the CPU, with `about`.
        chosen: the format.
        path: file to write.
        image: file that the check takes its images from.
        tell: called with each difference.

    Returns:
        The differences.

    Raises:
        ExportError: the network cannot be written in this format, or the file gives something else.
        UserError: packages are missing, or the image does not fit.
    """
    differences = []
    with replacing(path) as part:
        try:
            chosen.write(network, part)
        except UserError:
            raise
        except Exception as error:  # tracing has a dozen kinds, and their first line says what happened
            raise ExportError(f"the network cannot be traced: {_first_lines(error)}") from error
        maxima = chosen.maxima(part) if chosen.maxima and unpools(network) else None
        for difference in check(network, chosen.run(part), image, maxima):
            differences.append(difference)
            if tell:
                tell(difference)
    return differences


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:400] or type(error).__name__
