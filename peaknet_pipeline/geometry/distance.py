"""Camera lengths: the detector's, and those of frames where the run moved the detector or did not record where it was."""

from dataclasses import replace

import numpy as np

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.types import Float64Array, Geometry, IntArray


def knows_distance(geometry: Geometry) -> bool:
    """Tell whether every panel's camera length is a number, which resolutions and lattices need."""
    return all(np.isfinite(panel.clen_m) for panel in geometry.panels)


def camera_lengths_m(geometry: Geometry, frames: IntArray) -> Float64Array:
    """Return the mean camera length over the panels of each frame, (n,), metres; NaN where it is not known."""
    mean = float(np.mean([panel.clen_m for panel in geometry.panels]))
    return np.asarray(mean + clen_changes_m(geometry, frames), dtype=np.float64)


def clen_changes_m(geometry: Geometry, frames: IntArray) -> Float64Array:
    """Return how much further than ``Panel.clen_m`` the detector stood in each frame, (n,), metres; NaN where unknown.

    Raises
    ------
    GeometryError
        A frame's number is beyond the run's camera lengths.

    """
    changes = geometry.clen_change_m
    if changes is None:
        return np.zeros(len(frames))
    if len(frames) and int(frames.max()) >= changes.size:
        raise GeometryError(
            "frame without a camera length",
            where=geometry.source,
            expected=f"camera lengths of {int(frames.max()) + 1} frames",
            found=changes.size,
        )
    return np.asarray(changes[frames], dtype=np.float64)


def select_frames(geometry: Geometry, frames: IntArray) -> Geometry:
    """Return the geometry of some frames of a run, numbered anew by their place in ``frames``."""
    changes = geometry.clen_change_m
    return geometry if changes is None else replace(geometry, clen_change_m=changes[frames])
