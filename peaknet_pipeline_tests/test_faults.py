"""What the system and absurd input raise is one line; what a file holds is no command for a terminal."""

import errno
from pathlib import Path

import pytest

from peaknet_pipeline.errors import PeaknetError, printable
from peaknet_pipeline.faults import faults_explained

HDF5_FULL = "Can't decrement id ref count (file write failed: filename = 'x.cxi', errno = 28, error message = 'No space')"


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (
            OSError(errno.ENOSPC, "No space", "out.h5"),
            r"^out\.h5: No space left on device\. The disk is full",
        ),
        (OSError(errno.ENOSPC, "Error writing bytes"), r"^run\.h5: No space left on device"),
        (RuntimeError(HDF5_FULL), r"^run\.h5: No space left on device"),
        (PermissionError(errno.EACCES, "x", b"\xff.geom"), r"^\\udcff\.geom: Permission denied"),
        (OSError("odd"), r"^run\.h5: odd"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "not enough memory"),
        (RecursionError("maximum"), "nested too deeply"),
        (OverflowError("cannot convert float infinity to integer"), "out of all range"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "not UTF-8"),
    ],
)
def test_a_systems_fault_is_one_line_with_its_place(error, match):
    with pytest.raises(PeaknetError, match=match) as caught, faults_explained([Path("run.h5")]):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [KeyError("a"), RuntimeError("odd"), ValueError("x"), BrokenPipeError(32, "x")]
)
def test_a_fault_of_the_program_keeps_its_traceback(error):
    with pytest.raises(type(error)), faults_explained([]):
        raise error


def test_what_a_terminal_obeys_is_shown_escaped():
    hostile = "a\x1b]0;title\x07\x1b[31mred\r\x9b2J\u202egnp\x00\udcff\x7f"
    shown = printable(hostile)
    assert shown.isprintable()
    assert shown == r"a\x1b]0;title\x07\x1b[31mred\r\x9b2J\u202egnp\x00\udcff\x7f"
    assert printable("5 × 10⁻³ Å\u00a0– Kühn\n\tzwei") == "5 × 10⁻³ Å\u00a0– Kühn\n\tzwei"


def test_every_error_is_printable_and_bounded():
    error = PeaknetError("odd\x1b[2J", where="\x07.h5", found="x" * 10**6)
    assert str(error).isprintable()
    assert len(str(error)) < 3000
