"""Helpers that several test files share."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def shared_data(*parts: str) -> Path:
    """Return a folder of the shared data sets, or skip the test and say what is missing."""
    path = SHARED.joinpath("data", *parts)
    if not path.exists():
        pytest.skip(f"needs the shared data {'/'.join(parts)}, which is not here")
    return path
