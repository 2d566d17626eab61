"""Why a peak table's frames don't index: what the diagnosis of a run says without looking at its frames."""

from pathlib import Path

import numpy as np

from peaknet_pipeline.diagnosis_params import DiagnosisParams
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.schemas import INDEX, IndexTable
from peaknet_pipeline.steps.find_causes import describe, find_causes
from peaknet_pipeline.steps.peak_causes import Evidence
from peaknet_pipeline.steps.peak_record import RecordedPeaks, read_recorded_peaks
from peaknet_pipeline.tables import empty_table, read_table
from peaknet_pipeline.types import UnitCell


def diagnose_peaks(
    recorded: RecordedPeaks, lattices: IndexTable, cell: UnitCell, *, at_once: bool = False
) -> list[str]:
    """Return the diagnosis of a peak table and its lattices, a line for the rates and one per cause, the likeliest first.

    Causes that only frames can tell (a threshold that hides peaks) are not among them; ``at_once`` leaves out those that
    take long, other cells, distances and beam centres.
    """
    shape = (len(recorded.geometry.panels), 1, 1)
    evidence = Evidence(
        n_frames=recorded.n_frames,
        peaks=recorded.peaks,
        lattices=lattices,
        geometry=recorded.geometry,
        photon_energy_ev=recorded.photon_energy_ev,
        cell=cell,
        finder=None,
        index=IndexParams(),
        sample=np.empty((0, *shape), np.float32),
        bad_pixels=np.zeros(shape, np.bool_),
        params=DiagnosisParams(min_peaks=recorded.min_peaks),
    )
    return describe(evidence, find_causes(evidence, at_once=at_once)).splitlines()


def reasons_of(peaks: Path, geometry: Path, cell: Path, recorded: RecordedPeaks) -> list[str]:
    """Return why nothing of a peak table indexes, as far as its peaks tell at once, and the command that looks further."""
    told = diagnose_peaks(recorded, empty_table(INDEX), read_cell(cell), at_once=True)
    further = f"Type `peaknet diagnose {peaks} --geometry {geometry} --cell {cell}` to try other cells, distances and beams."
    return [line.removeprefix("Nothing wrong: ") for line in told] + [further]


def diagnose_command(peaks: Path, lattices: Path | None, *, geometry: Path, cell: Path) -> list[str]:
    """Diagnose a peak table; see ``peaknet diagnose``. It is indexed first where no lattices are given.

    Raises
    ------
    TableError, GeometryError, CellError
        One of the inputs is unusable.
    RunError
        No photon energy is known.

    """
    recorded, target = read_recorded_peaks(peaks, geometry), read_cell(cell)
    if lattices is not None:
        table = read_table(lattices, INDEX)
    else:
        energy = recorded.photon_energy_ev
        table = index_peaks(recorded.peaks, geometry=recorded.geometry, photon_energy_ev=energy, cell=target)
    return diagnose_peaks(recorded, table, target)
