"""Is it the right cell? What the peaks of a run that indexes say about the cell that it was indexed with.

A lattice of a wrong cell can be far beyond chance: a cell with one wrong axis shares a plane of its lattice with the
crystal, and a cell with a doubled axis contains the crystal's whole lattice. Scrambled azimuths don't see either. Two other
things do, pooled over a run: the peaks that are left over lie on layers of the very lattice that doesn't explain them, and
the peaks that are explained leave out every second (or third) layer of it.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from peaknet_pipeline.indexing.gate import LARGEST_SHARE
from peaknet_pipeline.indexing.predict import PredictParams, move_spots, table_axes, table_shifts
from peaknet_pipeline.indexing.qvectors import energy_of_frames, spot_vectors
from peaknet_pipeline.indexing.target import Target, make_target
from peaknet_pipeline.params import Parameters, declared, parameter
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.types import HC_EV_ANGSTROM, BoolArray, Float64Array, Geometry, IntArray, UnitCell

MODULI = (2, 3)
"""Indices of the sublattices that explained peaks are sought in."""

LARGEST_WIDTH = 0.15
"""Half width of a layer as a share of the layers' spacing, at most."""

BETWEEN = 0.2
"""A peak is off all lattice points if one of its indices is this far from a whole number."""

WITHIN = 0.4
"""Peaks are asked about layers where the largest stray is within this share of the shortest reciprocal-lattice vector."""

SURE = 0.8
"""Indices are believed where the largest stray is within this share of it: most crystals stray by half as much or less."""

_STEPS = np.array(
    [s for s in itertools.product((0, 1, -1), repeat=3) if any(s) and next(v for v in s if v) > 0],
    dtype=np.float64,
)


@dataclass(frozen=True)
class CellCheckParams(Parameters):
    """When a run's own peaks speak against the cell that it was indexed with."""

    max_layer_share: float = parameter(
        0.08,
        meaning="largest share of peaks on layers of their frame's lattices but at no lattice point, beyond chance",
        ge=0,
        le=1,
    )
    max_sublattice_share: float = parameter(
        0.9,
        meaning="largest share of explained peaks that leave out every second or third layer",
        gt=0,
        le=1,
    )
    min_peaks: int = parameter(50, meaning="with fewer peaks to judge by, nothing is said", ge=10)
    min_sigma: float = parameter(
        5.0, meaning="peaks on layers must be this far beyond chance", unit="σ", ge=0
    )
    tolerance: float = declared(PredictParams, "tolerance")
    layer_tolerance: float = parameter(
        0.0008, meaning="distance within which a peak lies on a layer", unit="Å⁻¹", gt=0
    )
    stray_angle: float = parameter(
        0.02,
        meaning="a peak may stray from its lattice point by this times |q| (split crystals); peaks at so large angles that "
        "any may have strayed are not asked about layers",
        unit="rad",
        gt=0,
    )


@dataclass(frozen=True)
class LayerCount:
    """Peaks that no lattice explains and that lie on layers across one direction of a lattice of their frame.

    ``direction`` real-space [u v w] of the given cell; ``n`` peaks at small enough angles to be asked; ``n_left`` of them at
    no lattice point; ``n_on`` of these on layers, ``n_chance`` as many as chance would put there; ``share`` those beyond
    chance over ``n``; ``sigma`` by how many standard deviations they are beyond it.
    """

    direction: tuple[float, float, float]
    n: int
    n_left: int
    n_on: int
    n_chance: float
    share: float
    sigma: float


@dataclass(frozen=True)
class SublatticeCount:
    """The fullest sublattice: ``n_in`` of ``n`` explained peaks have ``condition`` · (h, k, l) a multiple of ``modulus``."""

    modulus: int
    condition: tuple[float, float, float]
    n: int
    n_in: int

    @property
    def share(self) -> float:
        """Return the share of explained peaks in the sublattice; 0 without peaks."""
        return self.n_in / self.n if self.n else 0.0


@dataclass(frozen=True)
class CellExamination:
    """What a run's peaks say about its cell: peaks of indexed frames, how many are explained, layers, sublattice."""

    n_frames: int
    n_peaks: int
    n_explained: int
    layers: LayerCount
    sublattice: SublatticeCount


@dataclass(frozen=True)
class _Frame:
    """One frame's peaks: indices on the primitive bases of its lattices (k, n, 3), and which lattice explains which (k, n).

    ``sure`` (n,) peaks whose indices are believed; ``asked`` and ``left`` (n,) those of :class:`LayerCount`; ``lengths``
    (k, n_steps) real-space vectors, Å.
    """

    index: Float64Array
    near: BoolArray
    sure: BoolArray
    asked: BoolArray
    left: BoolArray
    lengths: Float64Array


def examine_cell(
    peaks: PeakTable,
    lattices: IndexTable,
    *,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    cell: UnitCell,
    params: CellCheckParams | None = None,
) -> CellExamination:
    """Ask the peaks of all indexed frames about the cell.

    Parameters
    ----------
    peaks : PeakTable
        What the lattices were found from; peaks that repeat from frame to frame are better left out.
    lattices : IndexTable
    geometry : Geometry
    photon_energy_ev : float or (n_frames,) float, eV
        By frame number.
    cell : UnitCell
        The cell that the lattices were sought with.
    params : CellCheckParams, optional

    Returns
    -------
    CellExamination
        Of a right cell the peaks left over are noise or other crystals, which lie on layers by chance, and all sublattices of
        index p hold about 1/p of the explained peaks. Systematic absences of axes and planes don't change that; absences
        of a centring that the cell file doesn't tell do. Without lattices all counts are 0.

    """
    params = params or CellCheckParams()
    target = make_target(cell)
    frames = list(_frames(peaks, lattices, geometry, photon_energy_ev, target, params))
    explained = [
        np.rint(index[near & f.sure]) for f in frames for index, near in zip(f.index, f.near, strict=True)
    ]
    return CellExamination(
        len(frames),
        sum(f.asked.size for f in frames),
        sum(int(f.near.any(axis=0).sum()) for f in frames),
        _count_layers(frames, target, params),
        _count_sublattices(np.concatenate([*explained, np.zeros((0, 3))]), target),
    )


def _frames(
    peaks: PeakTable,
    lattices: IndexTable,
    geometry: Geometry,
    photon_energy_ev: float | Float64Array,
    target: Target,
    params: CellCheckParams,
) -> Iterator[_Frame]:
    """Yield the peaks of every frame with a lattice."""
    q = spot_vectors(peaks, geometry=geometry, photon_energy_ev=photon_energy_ev)
    rows = peaks.groupby("frame", sort=False).indices
    numbers = lattices["frame"].to_numpy(dtype=np.int64)
    waves = energy_of_frames(photon_energy_ev, numbers) / HC_EV_ANGSTROM
    axes = table_axes(lattices) @ np.linalg.inv(target.to_conventional)
    shifts = table_shifts(lattices, geometry)
    for frame, own in lattices.groupby("frame", sort=True).indices.items():
        at = q[rows.get(frame, [])]
        moved = np.stack([move_spots(at, waves[i], shifts[i]) for i in own])
        yield _sort_peaks(moved, axes[own], target, params)


def _sort_peaks(spots: Float64Array, axes: Float64Array, target: Target, params: CellCheckParams) -> _Frame:
    """Sort one frame's spots, (k, n, 3), each lattice with its own shift, into those explained, asked and left over."""
    real = np.linalg.inv(axes)
    index = spots @ np.swapaxes(real, 1, 2)
    distance = np.linalg.norm(spots - np.rint(index) @ np.swapaxes(axes, 1, 2), axis=2)
    near = distance <= min(params.tolerance, LARGEST_SHARE * target.spacing)
    strayed = params.stray_angle * np.linalg.norm(spots[0], axis=1)
    asked = strayed <= WITHIN * target.spacing
    between = (np.abs(index - np.rint(index)) > BETWEEN).any(axis=2).all(axis=0)
    left = asked & between & ~near.any(axis=0) & (distance.min(axis=0) > strayed)
    sure = strayed <= SURE * target.spacing
    return _Frame(index, near, sure, asked, left, np.linalg.norm(_STEPS @ real, axis=2))


def _count_layers(frames: Sequence[_Frame], target: Target, params: CellCheckParams) -> LayerCount:
    """Count the peaks left over on layers across each short direction; return the direction most beyond chance."""
    on, chance, variance = np.zeros((3, len(_STEPS)))
    n, n_left = sum(int(f.asked.sum()) for f in frames), sum(int(f.left.sum()) for f in frames)
    for f in frames:
        width = np.minimum(params.layer_tolerance * f.lengths, LARGEST_WIDTH)
        along = f.index[:, f.left] @ _STEPS.T
        found: BoolArray = np.any(np.abs(along - np.rint(along)) <= width[:, None], axis=0)
        missed = np.prod(1.0 - 2.0 * width, axis=0)
        on += found.sum(axis=0)
        chance += (1.0 - missed) * len(found)
        variance += (1.0 - missed) * missed * len(found)
    sigma = (on - chance) / np.maximum(np.sqrt(variance), 1.0)
    best = int(np.argmax(sigma))
    # Peaks on layers that chance would have put there too belong to those beyond it.
    by_chance = min(float(chance[best]) / max(n_left, 1), 0.5)
    beyond = max(float(on[best] - chance[best]), 0.0) / (1.0 - by_chance)
    return LayerCount(
        _told(_STEPS[best] @ target.to_conventional),
        n,
        n_left,
        int(on[best]),
        float(chance[best]),
        beyond / max(n, 1),
        float(sigma[best]),
    )


def _count_sublattices(index: Float64Array, target: Target) -> SublatticeCount:
    """Return the sublattice of index 2 or 3 that holds most explained peaks for its size."""
    whole = index.astype(np.int64)
    found = []
    for modulus in MODULI:
        for condition in _conditions(modulus):
            n_in = int(((whole @ condition) % modulus == 0).sum())
            beyond = (n_in / max(len(whole), 1) - 1.0 / modulus) / (1.0 - 1.0 / modulus)
            told = _told(condition @ target.to_conventional)
            # Of nearly equal ones the simplest: all of "h even", "k even" and "h + k even" hold where two axes are doubled.
            found.append((round(beyond, 2), -sum(x != 0 for x in told), modulus, told, n_in))
    _, _, modulus, told, n_in = max(found, key=lambda f: f[:2])
    return SublatticeCount(modulus, told, len(whole), n_in)


def _told(vector: Float64Array) -> tuple[float, float, float]:
    """Return a vector that may as well be its opposite with its first number positive, without rounding errors."""
    first, second, third = (round(float(x), 3) + 0.0 for x in vector)
    lead = next((x for x in (first, second, third) if x), 1.0)
    return (first, second, third) if lead > 0 else (-first + 0.0, -second + 0.0, -third + 0.0)


def _conditions(modulus: int) -> list[IntArray]:
    """Return a vector (3,) for each sublattice of a prime index: points whose product with it is a multiple of the index."""
    every = itertools.product(range(modulus), repeat=3)
    return [np.array(m, dtype=np.int64) for m in every if any(m) and next(v for v in m if v) == 1]
