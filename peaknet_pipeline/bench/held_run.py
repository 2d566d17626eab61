"""A run whose frames are held in memory, for benchmarks on frames that are made and not read."""

from concurrent.futures import Executor
from pathlib import Path

from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry, RunInfo


class HeldRun(Run):
    """Frames (n, n_panels, ss, fs) in memory, with what a run of a file tells besides."""

    def __init__(
        self,
        frames: FrameArray,
        geometry: Geometry,
        *,
        bad_pixels: BoolArray,
        photon_energy_ev: Float64Array,
        name: str = "held",
    ) -> None:
        info = RunInfo(
            path=Path(name), data_path="", file_format="memory", n_frames=len(frames),
            stack_shape=(frames.shape[1], frames.shape[2], frames.shape[3]), dtype=frames.dtype.name,
            photon_energy_ev=photon_energy_ev, geometry_path=None, mask_path=None, checksum="",
            size_bytes=frames.nbytes,
        )  # fmt: skip
        super().__init__(
            _NoFile(Path(name)), (), info=info, geometry=geometry, bad_pixels=bad_pixels, mask_sources=(),
            clen_m=None,
        )  # fmt: skip
        self.frames = frames

    def read(self, start: int, stop: int, *, pool: Executor | None = None) -> FrameArray:
        """Return the frames ``start`` to ``stop``."""
        self.check_range(start, stop)
        return self.frames[start:stop]


class _NoFile:
    """Nothing is open."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def close(self) -> None:
        """Do nothing."""


def held(run: Run) -> HeldRun:
    """Return a run of a file with all of its frames in memory."""
    return HeldRun(
        run.read(0, run.n_frames),
        geometry_of(run),
        bad_pixels=run.bad_pixels,
        photon_energy_ev=run.photon_energy_ev,
        name=run.info.path.name,
    )
