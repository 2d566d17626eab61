"""Peaks found anew with other settings, so that their effect is seen on a frame and on a sample of the run."""

import dataclasses
import threading
from collections.abc import Mapping
from typing import Any

from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.infer.stream import Finder, as_found
from peaknet_pipeline.peaks.classical import CLASSICAL
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.steps.finders import FINDERS, finder_kind
from peaknet_pipeline.steps.peak_tables import add_resolution
from peaknet_pipeline.view.scene import Scene


def finder_forms() -> dict[str, Any]:
    """Return every finder's settings as a form: name, meaning, unit, default and range of each."""
    return {
        name: {
            "meaning": kind.meaning,
            "section": CLASSICAL[name].section if name in CLASSICAL else None,
            "settings": [
                {
                    "name": item.name,
                    "default": item.default,
                    **{part: item.metadata.get(part) for part in ("meaning", "unit", "choices")},
                    "low": item.metadata.get("ge", item.metadata.get("gt")),
                    "high": item.metadata.get("le"),
                }
                for item in dataclasses.fields(kind.parameters)
                if isinstance(item.default, int | float | str)
            ],
        }
        for name, kind in FINDERS.items()
    }


class Tuner:
    """Finds peaks of single frames; keeps the finder that was made last, since making one takes longer than a frame."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._lock = threading.Lock()
        self._made: tuple[object, Finder] | None = None

    def find(self, number: int, finder: str, settings: Mapping[str, Any], *, index: bool) -> dict[str, Any]:
        """Find the peaks of a frame, and its lattices if the cell is known and ``index`` asks for them.

        Raises
        ------
        ParameterError
            Unknown finder or setting, or a value out of range.

        """
        with self._lock:
            peaks = self._peaks(number, finder, settings)
        scene = self._scene
        found = {"peaks": scene.peak_marks(peaks), "n_peaks": len(peaks), "n_lattices": None}
        found["is_hit"] = len(hit_frames(peaks, min_peaks=scene.min_peaks)) > 0
        if index and scene.cell is not None:
            lattices = index_peaks(
                peaks,
                geometry=scene.geometry,
                photon_energy_ev=scene.run.photon_energy_ev,
                cell=scene.cell,
            )
            found["n_lattices"] = len(lattices)
        return found

    def _peaks(self, number: int, finder: str, settings: Mapping[str, Any]) -> PeakTable:
        kind = finder_kind(finder)
        params = kind.parameters.from_mapping(dict(settings))
        if self._made is None or self._made[0] != (finder, params):
            made = kind.make(params, self._scene.geometry, self._scene.bad_pixels, kind.load(None), False)
            self._made = (finder, params), made
        frames = self._scene.read(number)[None]  # in its own type: the same peaks as `peaknet find`
        peaks = as_found(self._made[1](frames, number)).peaks
        return add_resolution(peaks, self._scene.geometry, self._scene.run.photon_energy_ev)
