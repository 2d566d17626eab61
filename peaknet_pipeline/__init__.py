"""PeakNet Pipeline: Bragg-peak segmentation for serial crystallography, from raw runs to indexing yields.

From a file to lattices and a picture::

    import peaknet_pipeline as pn

    with pn.open_run("run.h5", "detector.geom") as run:
        peaks = pn.find(run, "peaknet")
        indexing = pn.index(peaks, run, "protein.cell")
        reflections = pn.predict(run, peaks, indexing)
        print(indexing, pn.rates(peaks, indexing, run).indexing_yield.value)
        pn.show(run, 0, peaks=peaks, reflections=reflections).savefig("frame.png")

The names load what they need when they are first used. What lies behind them, room by room, is drawn in
``docs/architecture.md``; the command line is ``peaknet --help``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peaknet_pipeline.geometry.crystfel import read_geometry as read_geometry
    from peaknet_pipeline.indexing.cell import read_cell as read_cell
    from peaknet_pipeline.runs.open import open_run as open_run
    from peaknet_pipeline.steps.front_door import find as find
    from peaknet_pipeline.steps.front_door import index as index
    from peaknet_pipeline.steps.front_door import look_again as look_again
    from peaknet_pipeline.steps.front_door import mask as mask
    from peaknet_pipeline.steps.front_door import predict as predict
    from peaknet_pipeline.steps.front_door import rates as rates
    from peaknet_pipeline.steps.front_door import show as show
    from peaknet_pipeline.steps.front_door import statistics as statistics
    from peaknet_pipeline.store.database import connect as connect

_FRONT_DOOR = "steps.front_door"
_PLACES = {
    "open_run": "runs.open",
    "read_geometry": "geometry.crystfel",
    "read_cell": "indexing.cell",
    "statistics": _FRONT_DOOR,
    "mask": _FRONT_DOOR,
    "find": _FRONT_DOOR,
    "index": _FRONT_DOOR,
    "look_again": _FRONT_DOOR,
    "predict": _FRONT_DOOR,
    "rates": _FRONT_DOOR,
    "show": _FRONT_DOOR,
    "connect": "store.database",
}
"""Where each public name is defined."""

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the public names beside the module's own."""
    return sorted({*globals(), *__all__})
