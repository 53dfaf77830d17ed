"""What every program does with errors that are not its own."""

import errno

import pytest

from utils.program import run_program


def failing(code: int):
    def main(_arguments):
        raise OSError(code, "No space left on device", "maps/a.tif.part")

    return main


def test_a_full_disk_is_one_line(capsys):
    assert run_program(failing(errno.ENOSPC), []) == 1
    error = capsys.readouterr().err
    assert "maps/a.tif.part could not be written: No space left on device; make room" in error
    assert len(error.splitlines()) == 1


def test_another_error_of_the_system_keeps_its_traceback():
    with pytest.raises(OSError, match="No space"):
        run_program(failing(errno.EIO), [])
