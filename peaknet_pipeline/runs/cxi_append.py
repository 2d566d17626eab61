"""A CXI file that grows by batches: frames that come from no file, with their peaks, as CrystFEL reads them."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.hdf5.new_file import new_hdf5
from peaknet_pipeline.runs.cxi import (
    CXI_VERSION,
    ENERGY_PATH,
    LISTS,
    MASK_PATH,
    RESULT,
    clip_peaks,
    count_and_place,
    linked_geometry,
    list_columns,
)
from peaknet_pipeline.runs.cxi_images import create_images, slab_of_geometry
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.types import MAX_CXI_PEAKS, BoolArray, FrameArray, Geometry, IntArray

NAMES = ("peakXPosRaw", "peakYPosRaw", *LISTS)


class CxiFile:
    """Takes frames and their peaks, batch by batch; file and ``.geom`` take their names only at a good end.

    Parameters
    ----------
    path : Path
    geometry : Geometry
        Names the photon energy, in eV.
    bad_pixels : (n_panels, ss, fs) bool
    dtype : numpy dtype, optional
        Type of all images; that of the first frames by default.
    provenance : mapping, optional
        Kept as attributes of ``/entry_1/result_1``.

    """

    def __init__(
        self,
        path: Path,
        geometry: Geometry,
        bad_pixels: BoolArray,
        *,
        dtype: npt.DTypeLike | None = None,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.n_clipped_peaks = 0
        self._geometry, self._bad, self._provenance = geometry, bad_pixels, dict(provenance or {})
        self._slab = slab_of_geometry(geometry)
        self._images: Any = None
        self._dtype = dtype

    def __enter__(self) -> Self:
        """Open a temporary file beside the final one."""
        with ExitStack() as stack:
            self._file = stack.enter_context(new_hdf5(self.path))
            self._create_lists()
            if self._dtype is not None:
                self._images = create_images(self._file, self._slab, self._dtype)
            self._open = stack.pop_all()
        return self

    def _create_lists(self) -> None:
        file = self._file
        file["cxi_version"] = CXI_VERSION
        mask = self._slab.from_stack(self._bad.astype(np.uint8))
        file.create_dataset(MASK_PATH, data=mask, compression="gzip", shuffle=True)
        for name in NAMES:
            file.create_dataset(
                f"{RESULT}/{name}",
                (0, MAX_CXI_PEAKS),
                np.float32,
                maxshape=(None, MAX_CXI_PEAKS),
                chunks=(16, MAX_CXI_PEAKS),
                compression="gzip",
                shuffle=True,
            )
        energies = () if self._geometry.photon_energy_ev is None else ((ENERGY_PATH, np.float64),)
        for name, dtype in ((f"{RESULT}/nPeaks", np.int32), (f"{RESULT}/frame", np.int64), *energies):
            file.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(1024,))
        file[RESULT].attrs.update(self._provenance)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the files their names, or remove what was written if there is an exception."""
        if kind is not None:
            self._open.__exit__(kind, value, traceback)
            return
        with self._open:
            if self._images is None:
                create_images(self._file, self._slab, np.float32)
        known = self._geometry.photon_energy_ev is not None
        linked = linked_geometry(self._geometry, self._slab, has_energy=known, has_clen=False)
        made_by = self._provenance.get("stage", "")
        write_geometry(linked, self.path.with_suffix(".geom"), made_by=made_by)

    def append(self, peaks: PeakTable, frames: FrameArray, numbers: IntArray) -> None:
        """Write frames (k, n_panels, ss, fs), numbered (k,), with the peaks that carry their numbers.

        Raises
        ------
        RunError
            Pixels of a type that the images' type cannot hold.

        """
        if self._images is None:
            self._images = create_images(self._file, self._slab, frames.dtype)
        if not np.can_cast(frames.dtype, self._images.dtype):
            raise RunError(
                "frames change their type", where=self.path, expected=self._images.dtype, found=frames.dtype
            )
        done = self._images.shape[0]
        for name in ("nPeaks", "frame", *NAMES):
            self._file[f"{RESULT}/{name}"].resize(done + len(frames), axis=0)
        self._images.resize(done + len(frames), axis=0)
        for row, frame in enumerate(frames, start=done):
            self._images[row] = self._slab.from_stack(frame)
        self._file[f"{RESULT}/frame"][done:] = numbers
        self._append_energy(done + len(frames))
        self._append_lists(peaks, numbers, done)
        self._file.check_written()

    def _append_energy(self, n_frames: int) -> None:
        known = self._geometry.photon_energy_ev
        if known is None:
            return
        energy = self._file[ENERGY_PATH]
        done = energy.shape[0]
        energy.resize(n_frames, axis=0)
        energy[done:] = known

    def _append_lists(self, peaks: PeakTable, numbers: IntArray, done: int) -> None:
        row_of = {int(number): row for row, number in enumerate(numbers)}
        ours = peaks[peaks["frame"].isin(row_of)]
        kept = clip_peaks(ours)
        self.n_clipped_peaks += len(ours) - len(kept)
        row = kept["frame"].map(row_of).to_numpy(np.int64)
        order = np.argsort(row, kind="stable")
        counts, place = count_and_place(row[order], len(numbers))
        self._file[f"{RESULT}/nPeaks"][done:] = counts
        for name, values in list_columns(kept, self._slab).items():
            block = np.zeros((len(numbers), MAX_CXI_PEAKS), dtype=np.float32)
            block[row[order], place] = values[order]
            self._file[f"{RESULT}/{name}"][done:] = block
