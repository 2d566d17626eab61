"""Label maps on disk: one HDF5 file per run, one compressed chunk per frame, written atomically."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from peaknet_pipeline.errors import LabelError, RunError
from peaknet_pipeline.hdf5.attributes import read_attributes, write_text
from peaknet_pipeline.hdf5.chunks import read_rows, read_whole
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.types import LABEL_BACKGROUND, LABEL_IGNORE, LABEL_PEAK, IntArray, UInt8Array

FORMAT = "peaknet-labels-2"
"""Written in every label file; another value is refused."""


class LabelFile:
    """An open label file; read frames by position, not by frame number.

    Attributes
    ----------
    frames : int64, (n,)
        Frame numbers in the run, ascending.
    n_peaks : int64, (n,)
        Labelled reflections in each frame.
    stack_shape : (n_panels, ss, fs)
    provenance : dict of str
        What the labels were made from.
    digest : str
        SHA-256 of frames, maps and provenance.

    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._files = LinkedFiles(path)
        except RunError as error:
            raise LabelError(
                f"not a readable label file ({error})", where=path, remedy="Make the run's peak_labels again."
            ) from error
        try:
            self._read_header()
        except BaseException:
            self._files.close()
            raise

    def _read_header(self) -> None:
        told = read_attributes(self._files.file)
        found = told.get("format")
        if found != FORMAT or "digest" not in told:
            raise LabelError("not a label file", where=self.path, expected=FORMAT, found=found)
        self._labels = self._files.dataset("/labels")
        self.frames: IntArray = read_whole(self._files.dataset("/frames")).astype(np.int64)
        self.n_peaks: IntArray = read_whole(self._files.dataset("/n_peaks")).astype(np.int64)
        _, n_panels, n_ss, n_fs = self._labels.shape
        self.stack_shape: tuple[int, int, int] = (int(n_panels), int(n_ss), int(n_fs))
        self.provenance: dict[str, str] = json.loads(told["provenance"])
        self.digest = str(told["digest"])

    def __len__(self) -> int:
        """Return the number of labelled frames."""
        return len(self.frames)

    def read(self, position: int) -> UInt8Array:
        """Return the label map at a position, uint8 (n_panels, ss, fs)."""
        return np.asarray(read_rows(self._labels, position, position + 1)[0], dtype=np.uint8)

    def close(self) -> None:
        """Close the file."""
        self._files.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()


def open_labels(path: Path) -> LabelFile:
    """Open a label file for reading.

    Raises
    ------
    LabelError
        The file is missing, damaged or of another format.

    """
    return LabelFile(path)


@dataclass
class LabelWriter:
    """Append label maps to an open file; made by ``write_labels_to``."""

    _file: Any
    _digest: Any
    n_frames: int = 0

    def append(self, frame: int, labels: UInt8Array, n_peaks: int) -> None:
        """Append one frame's map; frames must come in ascending order.

        Raises
        ------
        LabelError
            Wrong shape, dtype, values or order.

        """
        store = self._file["labels"]
        if labels.shape != store.shape[1:] or labels.dtype != np.uint8:
            raise LabelError(
                "label map has a wrong shape or dtype",
                where=f"frame {frame}",
                expected=f"uint8 {store.shape[1:]}",
                found=f"{labels.dtype} {labels.shape}",
            )
        if self.n_frames and frame <= self._file["frames"][self.n_frames - 1]:
            raise LabelError("frames must ascend", where=f"frame {frame}")
        for name in ("labels", "frames", "n_peaks"):
            self._file[name].resize(self.n_frames + 1, axis=0)
        store[self.n_frames] = labels
        self._file["frames"][self.n_frames] = frame
        self._file["n_peaks"][self.n_frames] = n_peaks
        self._digest.update(np.array([frame, n_peaks], np.int64).tobytes() + labels.tobytes())
        self.n_frames += 1


@contextlib.contextmanager
def write_labels_to(
    path: Path, stack_shape: tuple[int, int, int], *, provenance: Mapping[str, str]
) -> Iterator[LabelWriter]:
    """Open a label file for writing frame by frame; it takes its final name only when the block succeeds."""
    with new_hdf5(path) as file:
        origin = json.dumps(dict(provenance), sort_keys=True)
        meaning = f"{LABEL_BACKGROUND} background, {LABEL_PEAK} peak, {LABEL_IGNORE} ignore"
        for name, text in (("format", FORMAT), ("provenance", origin), ("meaning", meaning)):
            write_text(file, name, text)
        file.create_dataset(
            "labels",
            shape=(0, *stack_shape),
            maxshape=(None, *stack_shape),
            chunks=(1, *stack_shape),
            dtype=np.uint8,
            compression="gzip",
            compression_opts=1,
            shuffle=False,
            fletcher32=True,
        )
        file.create_dataset("frames", shape=(0,), maxshape=(None,), chunks=(1024,), dtype=np.int64)
        file.create_dataset("n_peaks", shape=(0,), maxshape=(None,), chunks=(1024,), dtype=np.int64)
        writer = LabelWriter(file, hashlib.sha256(origin.encode()))
        yield writer
        write_text(file, "digest", writer._digest.hexdigest())


def write_labels(
    path: Path,
    frames: Iterable[tuple[int, UInt8Array, int]],
    stack_shape: tuple[int, int, int],
    *,
    provenance: Mapping[str, str],
) -> int:
    """Write (frame number, label map, labelled reflections) triples; return how many."""
    with write_labels_to(path, stack_shape, provenance=provenance) as writer:
        for frame, labels, n_peaks in frames:
            writer.append(frame, labels, n_peaks)
        return writer.n_frames


def read_labels(path: Path) -> tuple[IntArray, UInt8Array]:
    """Read a whole label file: frame numbers (n,) and maps (n, n_panels, ss, fs). For small runs."""
    with open_labels(path) as file:
        maps = [file.read(i) for i in range(len(file))]
        return file.frames, np.stack(maps) if maps else np.empty((0, *file.stack_shape), np.uint8)


def labels_digest(path: Path) -> str:
    """Return a short hash of a label file's content, taken while it was written: frames, maps and provenance.

    Raises
    ------
    LabelError
        The file is missing, damaged or of another format.

    """
    with open_labels(path) as file:
        return file.digest[:16]
