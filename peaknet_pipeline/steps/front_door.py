"""What ``import peaknet_pipeline as pn`` offers: from a file to peaks, lattices, rates and a picture in a few lines.

Each function does what the command or asset of its name does, with the same parameters and the same outcome, and
writes nothing. Settings are the names that ``--set`` takes.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.hits import MIN_PEAKS
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.control import ControlRecord
from peaknet_pipeline.indexing.integrate import IntegrateParams
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams
from peaknet_pipeline.indexing.second_look.run_params import RunSecondLookParams
from peaknet_pipeline.metrics import RunRates, count_rates
from peaknet_pipeline.plots.images import draw_frame_peaks
from peaknet_pipeline.runs.masks import read_drawn_mask
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.statistics import compute_statistics
from peaknet_pipeline.schemas import IndexTable, PeakTable, ReflectionTable
from peaknet_pipeline.steps.find_in_run import find_in_run
from peaknet_pipeline.steps.finders import finder_kind
from peaknet_pipeline.steps.index_run import index_with_control, predict_run
from peaknet_pipeline.steps.look_again import look_again as look_again_at_run
from peaknet_pipeline.steps.mask_of_run import StatisticsParams, mask_run
from peaknet_pipeline.steps.noise_budget import within_budget
from peaknet_pipeline.steps.peak_tables import positions_px
from peaknet_pipeline.steps.progress import progress_bar
from peaknet_pipeline.steps.second_look_tables import SecondLookOutcome
from peaknet_pipeline.types import BoolArray, RunStatistics, UnitCell

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Indexing:
    """Lattices of a run with the control that says how far to trust them.

    Attributes
    ----------
    lattices : IndexTable
        One row per lattice.
    control : ControlRecord
        The same hits with scrambled azimuths: ``n_indexed`` of ``n_scrambled`` index by chance.
    cell : UnitCell
        The cell that was looked for.

    """

    lattices: IndexTable
    control: ControlRecord
    cell: UnitCell

    def __repr__(self) -> str:
        """Return counts of lattices, frames and the control."""
        frames, control = self.lattices["frame"].nunique(), self.control
        return (
            f"<Indexing: {len(self.lattices)} lattices in {frames} frames; of {control.n_scrambled} scrambled hits "
            f"{control.n_indexed} index>"
        )


def statistics(run: Run, *, max_frames: int | None = None) -> RunStatistics:
    """Return mean, standard deviation and maximum of each pixel over a run's frames, each (n_panels, ss, fs), adu.

    Parameters
    ----------
    run : Run
    max_frames : int, optional
        Frames looked at, evenly spaced; all by default.

    """
    with progress_bar("statistics") as progress:
        return compute_statistics(run, max_frames=max_frames, progress=progress)


def mask(run: Run, **settings: Any) -> BoolArray:
    """Return a run's bad pixels, (n_panels, ss, fs), True = bad: from its frames, its files and these settings.

    Parameters
    ----------
    run : Run
    **settings
        Parameters of the sections ``bad_pixels`` and ``mask``, as ``peaknet mask --set`` takes them.

    """
    with progress_bar("mask") as progress:
        return mask_run(run, StatisticsParams.from_mapping(settings), progress=progress)[1].bad_pixels


def find(
    run: Run,
    finder: str = "peakfinder8",
    *,
    bad_pixels: BoolArray | Path | str | None = None,
    model: Path | str | None = None,
    **settings: Any,
) -> PeakTable:
    """Find the Bragg peaks of a run; the table that ``peaknet find`` writes.

    Parameters
    ----------
    run : Run
        Opened with a geometry, or with one of its own.
    finder : str
        ``peakfinder8``, ``droplet`` or ``peaknet``.
    bad_pixels : (n_panels, ss, fs) bool, or the path of a mask file, optional
        True = bad, beside those that the run itself names.
    model : path, optional
        Folder of a network for the finder ``peaknet``; the one that comes with the package by default.
    **settings
        Parameters of the finder, as ``--set`` takes them.

    Returns
    -------
    PeakTable
        One row per peak: ``frame, panel, ss, fs``, intensity (adu), SNR, 1/d (Å⁻¹), score.

    Raises
    ------
    ParameterError
        Unknown finder or setting.
    GeometryError
        The run has no geometry.

    """
    kind, geometry = finder_kind(finder), geometry_of(run)
    params = kind.parameters.from_mapping(settings)
    network = kind.load(Path(model) if model is not None else None)
    bad = _bad_pixels(run, bad_pixels)
    made = kind.make(within_budget(run, params, bad), geometry, bad, network, False)
    with progress_bar(finder) as progress:
        return find_in_run(run, made, progress=progress)[0]


def index(
    peaks: PeakTable,
    run: Run,
    cell: UnitCell | Path | str,
    *,
    min_peaks: int = MIN_PEAKS,
    **settings: Any,
) -> Indexing:
    """Index a run's peaks with a known cell, and the same hits scrambled as a control.

    Parameters
    ----------
    peaks : PeakTable
    run : Run
        Gives geometry and photon energies.
    cell : UnitCell, or the path of a ``.cell`` or PDB file
    min_peaks : int
        Least peaks of a hit; only hits take part in the control.
    **settings
        Parameters of the indexer, as ``peaknet index --set`` takes them.

    """
    target = cell if isinstance(cell, UnitCell) else read_cell(cell)
    lattices, control = index_with_control(
        peaks,
        geometry_of(run),
        run.photon_energy_ev,
        target,
        IndexParams.from_mapping(settings),
        min_peaks=min_peaks,
    )
    return Indexing(lattices, control, target)


def predict(
    run: Run,
    peaks: PeakTable,
    indexing: Indexing,
    *,
    bad_pixels: BoolArray | Path | str | None = None,
    **settings: Any,
) -> ReflectionTable:
    """Predict the reflections of a run's lattices and integrate them; the table that the index assets write.

    Parameters
    ----------
    run : Run
    peaks : PeakTable
        Those that were indexed: they tell how wide reflections are and how far they reach.
    indexing : Indexing
    bad_pixels : as for :func:`find`
    **settings
        Parameters of the sections ``prediction`` and ``integration``.

    """
    integration = IntegrateParams.from_mapping(IntegrateParams.own(settings))
    params = PredictParams.from_mapping({k: v for k, v in settings.items() if k not in integration.to_dict()})
    bad = _bad_pixels(run, bad_pixels)
    with progress_bar("reflections") as progress:
        return predict_run(
            run, indexing.lattices, peaks, indexing.cell, params, integration, bad=bad, progress=progress
        )[0]


def look_again(
    run: Run,
    indexing: Indexing,
    *,
    bad_pixels: BoolArray | Path | str | None = None,
    **settings: Any,
) -> SecondLookOutcome:
    """Search the frames of a run that have no lattice once more, by the sum of their weak evidence; see the second look's page.

    Parameters
    ----------
    run : Run
    indexing : Indexing
        Of the list of peaks: its lattices tell the cell, the beam and how crystals diffract.
    bad_pixels : as for :func:`find`
    **settings
        Parameters of the section ``second_look``, as ``n_controls=100``.

    Returns
    -------
    SecondLookOutcome
        Lattices with their score in nats, the control with its bar, what the run's own lattices told.

    """
    params = RunSecondLookParams.from_mapping(settings)
    bad = _bad_pixels(run, bad_pixels)
    with progress_bar("second look") as progress:
        return look_again_at_run(
            run, indexing.lattices, bad_pixels=bad, cell=indexing.cell, params=params, progress=progress
        )


def rates(peaks: PeakTable, indexing: Indexing, run: Run, *, min_peaks: int = MIN_PEAKS) -> RunRates:
    """Return a run's hit rate, indexing rate and indexing yield, each with both of its counts.

    hit rate = hits / frames; indexing rate = indexed hits / hits; indexing yield = indexed frames / frames.
    """
    return count_rates(peaks, indexing.lattices, n_frames=run.n_frames, min_peaks=min_peaks)


def show(
    run: Run,
    frame: int,
    *,
    peaks: PeakTable | None = None,
    reflections: ReflectionTable | None = None,
) -> "Figure":
    """Draw a frame as it lies in the laboratory, with the peaks found and the reflections predicted there.

    Parameters
    ----------
    run : Run
    frame : int
        Number of the frame, from 0.
    peaks : PeakTable, optional
        Of the run; those of this frame are drawn.
    reflections : ReflectionTable, optional
        As :func:`predict` gives them.

    Returns
    -------
    matplotlib Figure
        A notebook draws it; ``figure.savefig("frame.png")`` writes it.

    """
    geometry = geometry_of(run)
    image = np.where(run.bad_pixels, np.nan, run.read(frame, frame + 1)[0])
    given = {"found": peaks, "predicted": reflections}
    tables = {name: t[t["frame"] == frame] for name, t in given.items() if t is not None}
    if "IPython" in sys.modules:
        import matplotlib.pyplot  # noqa: F401  # a notebook draws figures once this is loaded
    return draw_frame_peaks(
        np.asarray(assemble(image, geometry)),
        {name: positions_px(table, geometry) for name, table in tables.items()},
        title=f"{run.info.path.name}, frame {frame}",
        extent=image_extent(geometry),
    )


def _bad_pixels(run: Run, more: BoolArray | Path | str | None) -> BoolArray:
    if more is None:
        return run.bad_pixels
    if isinstance(more, str | Path):
        more = read_drawn_mask(Path(more), run.geometry, doubt=lambda told: warnings.warn(told, stacklevel=3))
    return np.logical_or(run.bad_pixels, more)
