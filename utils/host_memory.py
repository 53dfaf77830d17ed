"""How much memory programs may still take on this machine, as far as the system says it."""

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/")
# Of both versions of control groups: limit, use, and the name of what is given back where memory is short.
_LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def free_memory(root: Path = _ROOT) -> int | None:
    """Return the bytes that can be taken without swapping, within the limits of a container or a batch job.

    Args:
        root: Where the system's files are found.

    Returns:
        None where the system has no such files: they are Linux's.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        table = dict(line.split(":", 1) for line in lines)
        free = int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    return max(0, min([free, *_left_in_groups(root)]))


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what the limit of each control group around this process leaves, where it has one."""
    for folder in _group_folders(root):
        for limit, used, cached in _LIMITS:
            try:
                most, now = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
                statistics = (folder / "memory.stat").read_text(encoding="ascii").split()
            except (OSError, ValueError):  # no such group, or the word "max"
                continue
            reclaimed = dict(zip(statistics[::2], statistics[1::2], strict=True)).get(cached, 0)
            yield most - now + int(reclaimed)


def _group_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups of memory, from the innermost to the outermost."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("" if number == "0" else "memory")
        # A container may show its own group as the top one under the path that it has outside.
        inner = top / path.lstrip("/")
        yield inner
        while inner != top:
            inner = inner.parent
            yield inner
