"""Simulated runs that are as long as a benchmark needs: a short one, read over and over."""

from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.infer.stream import FrameReader, RunOpener
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.types import FrameArray


def simulated_run(folder: Path, detector: str, n_frames: int, seed: int) -> RunOpener:
    """Write a compressed run with a geometry; return how to open it."""
    from peaknet_pipeline.simulate.draw import draw_experiment
    from peaknet_pipeline.simulate.files import write_experiment_files
    from peaknet_pipeline.simulate.run import simulate_run

    experiment = draw_experiment(seed, detector=detector, sample="lysozyme")
    geometry, _ = write_experiment_files(experiment, folder)
    path = simulate_run(experiment, folder / "run.h5", n_frames=n_frames, seed=seed)
    return partial(open_run, path, geometry)


class _Again:
    """What both kinds of long run share: opening the short one."""

    def __init__(self, opener: RunOpener, n_frames: int) -> None:
        self._opened = opener()
        self._inside: FrameReader | None = None
        self.n_frames = n_frames

    def __enter__(self) -> Self:
        """Open the short run."""
        self._inside = self._opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """Close the short run."""
        self._opened.__exit__(*error)

    @property
    def inside(self) -> FrameReader:
        """The short run."""
        if self._inside is None:
            raise ParameterError("the run is not open")
        return self._inside


class RepeatedRun(_Again):
    """The first ``distinct`` frames of a run over and over; a range must not go past their end."""

    def __init__(self, opener: RunOpener, n_frames: int, distinct: int) -> None:
        super().__init__(opener, n_frames)
        self._distinct = distinct

    def read(self, start: int, stop: int) -> FrameArray:
        """Return the frames ``start`` to ``stop``, (n, n_panels, ss, fs)."""
        first = start % self._distinct
        return self.inside.read(first, first + stop - start)


class SmallFrames(_Again):
    """A long run of small windows, cut from a short run's frames."""

    def __init__(self, opener: RunOpener, n_frames: int, side: int = 64) -> None:
        super().__init__(opener, n_frames)
        self._side = side

    def read(self, start: int, stop: int) -> FrameArray:
        """Return the windows ``start`` to ``stop``, (n, 1, side, side)."""
        frames, side = self.inside.read(0, self.inside.n_frames), self._side
        windows = frames[:, :, : frames.shape[2] // side * side, : frames.shape[3] // side * side]
        n, panels, height, width = windows.shape
        cells = windows.reshape(n, panels, height // side, side, width // side, side).swapaxes(3, 4)
        flat = cells.reshape(-1, 1, side, side)
        return np.ascontiguousarray(flat[np.arange(start, stop) % len(flat)])
