"""New HDF5 files: complete under their name or absent, also where the disk is full."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from peaknet_pipeline.atomic import replace_atomically


@contextmanager
def new_hdf5(path: Path) -> Iterator[Any]:
    """Give a new HDF5 file to write to, a :class:`NewFile`; it takes the name ``path`` only when the block succeeds.

    What cannot be written any more is dropped, and the error raised at the end of the block; whoever writes for long
    asks ``file.check_written()`` now and then.

    Raises
    ------
    OSError
        The file cannot be written; it names ``path``.

    """
    with replace_atomically(path) as temporary, _StoredBytes(temporary, path) as stored:
        file = NewFile(stored)
        try:
            yield file
        finally:
            file.close()
        stored.check()


class NewFile(h5py.File):  # type: ignore[misc]  # h5py has no types
    """An HDF5 file that is being written."""

    def __init__(self, stored: "_StoredBytes") -> None:
        super().__init__(stored, "w")
        self._stored = stored

    def check_written(self) -> None:
        """Raise the first OSError of writing, if there was one."""
        self._stored.check()


class _StoredBytes(io.RawIOBase):
    """The bytes of a file that the HDF5 library writes through Python.

    When its own driver cannot write, on a full disk, the library cannot close the file either, and the process ends with
    a segmentation fault. Nor may Python raise while the library writes: it does so, too, while objects are taken apart,
    where an exception gets lost. Here the first error is kept, and what the library writes afterwards is dropped, so that
    it closes the file in order.
    """

    def __init__(self, temporary: Path, path: Path) -> None:
        self._path, self._place = path, 0
        self._error: OSError | None = None
        self._handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._handle)
        super().close()

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self._error is not None:
            raise self._error

    def readable(self) -> bool:
        """Bytes can be read back."""
        return True

    def writable(self) -> bool:
        """Bytes can be written."""
        return True

    def seekable(self) -> bool:
        """Bytes have places."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}
        self._place = offset + (start[whence] if whence in start else os.fstat(self._handle).st_size)
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return the number of bytes that there were."""
        n = os.preadv(self._handle, [buffer], self._place)
        self._place += n
        return n

    def write(self, buffer: Any) -> int:
        """Write a buffer, all of it, or keep the first error."""
        left = memoryview(buffer).cast("B")
        size, place = len(left), self._place
        self._place += size
        try:
            while self._error is None and left:
                n = os.pwrite(self._handle, left, place)
                left, place = left[n:], place + n
        except OSError as error:
            self._fail(error)
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the length, up to the present place by default."""
        length = self._place if size is None else size
        try:
            os.ftruncate(self._handle, length)
        except OSError as error:
            self._fail(error)
        return length

    def _fail(self, error: OSError) -> None:
        if self._error is None:
            self._error = OSError(error.errno, error.strerror, str(self._path))
