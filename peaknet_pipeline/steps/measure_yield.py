"""The indexing yield of a network on a sample of a run's frames."""

from dataclasses import dataclass

from peaknet_pipeline.geometry.distance import select_frames
from peaknet_pipeline.indexing.control import ControlRecord
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.metrics import RunRates, count_rates
from peaknet_pipeline.runs.rings import RingParams, drop_ring_peaks
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.sample import read_frames, sample_frames
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.steps.find_with_network import engine_recipe
from peaknet_pipeline.steps.index_run import index_with_control
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.steps.peak_tables import add_resolution, join_peaks
from peaknet_pipeline.steps.progress import Progress
from peaknet_pipeline.types import BoolArray, IntArray, UnitCell


@dataclass(frozen=True)
class YieldMeasurement:
    """Rates of a sample of frames, the false-index control, and how many peaks were found."""

    rates: RunRates
    control: ControlRecord
    n_peaks: int


def measure_yield(
    run: Run,
    model: LoadedModel,
    cell: UnitCell,
    *,
    max_frames: int | None,
    inference: InferenceParams,
    index: IndexParams,
    min_peaks: int,
    bad_pixels: BoolArray,
    rings: RingParams,
    progress: Progress,
) -> YieldMeasurement:
    """Find and index at most ``max_frames`` frames, spread over a run, with a network; None takes all."""
    inference = inference.fit(run.read(0, 1), run.n_frames)
    chosen = sample_frames(run.n_frames, max_frames)
    recipe = engine_recipe(model, inference, geometry=geometry_of(run), bad_pixels=bad_pixels)
    found = _find(run, recipe.make_engine(), chosen, inference.batch_frames, progress)
    geometry, energy = select_frames(geometry_of(run), chosen), run.photon_energy_ev[chosen]
    peaks = drop_ring_peaks(add_resolution(found, geometry, energy), rings)
    lattices, control = index_with_control(peaks, geometry, energy, cell, index, min_peaks=min_peaks)
    rates = count_rates(peaks, lattices, n_frames=len(chosen), min_peaks=min_peaks)
    return YieldMeasurement(rates, control, len(peaks))


def _find(run: Run, engine: Engine, chosen: IntArray, batch: int, progress: Progress) -> PeakTable:
    """Find the peaks of some frames; they are numbered by their place in ``chosen``."""
    parts: list[PeakTable] = []
    for first in range(0, len(chosen), batch):
        numbers = chosen[first : first + batch]
        parts.append(engine(read_frames(run, numbers), first))
        progress(first + len(numbers), len(chosen))
    return join_peaks(parts)
