"""What an unfinished stream has found, on disk in parts, so that it can be taken up again.

A part holds the results of consecutive frames, and its name tells which. It has its name only when it is complete: frames
that a part names are never computed again, those that none names are, and none is lost or doubled.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from peaknet_pipeline.atomic import remove_leftovers, temporary_prefix
from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.infer.batches import Stretch
from peaknet_pipeline.infer.part_files import has_parts, read_part, whole_parts
from peaknet_pipeline.infer.sinks import PeakSink

LOCK_FILE = "lock"


class Parts:
    """The parts of one stream over a run of ``n_frames`` frames, None if nobody knows how many; see :func:`open_parts`."""

    def __init__(self, folder: Path, n_frames: int | None) -> None:
        self.folder, self.n_frames = folder, n_frames
        self.written: list[Stretch] = whole_parts(folder)

    @property
    def missing(self) -> list[Stretch]:
        """Stretches of frames that are in no part, ascending."""
        if self.n_frames is None:
            return []
        bounds = [0, *(bound for stretch in sorted(self.written) for bound in stretch), self.n_frames]
        gaps = zip(bounds[::2], bounds[1::2], strict=True)
        return [(first, stop) for first, stop in gaps if first < stop]

    @property
    def end(self) -> int:
        """The place after the last frame that is in a part."""
        return max((stop for _, stop in self.written), default=0)

    @property
    def n_written(self) -> int:
        """Number of frames that are in parts."""
        return sum(stop - first for first, stop in self.written)

    def join(self, sinks: Sequence[PeakSink]) -> None:
        """Give everything to the sinks, in frame order, as a stream that was never interrupted does.

        Raises
        ------
        StreamError
            Frames are missing.

        """
        if self.missing:
            raise StreamError("frames are missing", where=self.folder, found=self.missing)
        with ExitStack() as stack:
            for sink in sinks:
                stack.enter_context(sink)
            for span in sorted(self.written):
                found = read_part(self.folder, span)
                for sink in sinks:
                    sink.write(found, np.arange(*span) if found.numbers is None else found.numbers)


@contextmanager
def open_parts(
    folder: Path, *, recipe: str, n_frames: int | None, keep_others: bool = False
) -> Iterator[Parts]:
    """Give the parts that a stream of the same ``recipe`` (run, model, parameters, program) left in ``folder``.

    What other recipes left there is thrown away, or, with ``keep_others``, since a live stream cannot be repeated, refused.
    The folder is removed at the end of the block; after an exception it stays where there are parts in it.

    Raises
    ------
    StreamError
        Another process is at work there, or a stream of another recipe left its parts.

    """
    with _lock(folder):
        remove_leftovers(folder)
        mine = folder / hashlib.sha256(recipe.encode()).hexdigest()[:16]
        for path in folder.iterdir():
            if path.is_dir() and path != mine:
                if keep_others and has_parts(path):
                    raise _left_by_another(folder)
                shutil.rmtree(path)
        mine.mkdir(exist_ok=True)
        try:
            yield Parts(mine, n_frames)
        except BaseException:
            if not has_parts(mine):
                _remove(folder)
            raise
        _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder whole: half of its files would pass for an unfinished stream's."""
    gone = folder.with_name(f"{temporary_prefix(folder)}done.tmp")
    folder.rename(gone)
    shutil.rmtree(gone)


def _left_by_another(folder: Path) -> StreamError:
    return StreamError(
        "an unfinished stream with other settings left what it found here",
        where=folder,
        remedy="Repeat that command to finish it, write to another file, or remove the folder.",
    )


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keep other processes out; the system opens the lock when this one ends, however it does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StreamError(
                "another process is finding these peaks",
                where=folder,
                remedy="Wait for it, end it, or write to another file.",
            ) from error
        yield
