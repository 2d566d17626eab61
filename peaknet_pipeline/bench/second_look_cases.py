"""Frames whose lattices are known, for the benchmark of the second look: simulated, by another program, or real and thinned.

A photon that is kept with the same chance q as every other thins Poisson noise of rate λ to Poisson noise of rate q·λ exactly,
so that a counting detector's frame at a hundredth of its photons is what a hundredth of the exposure would have shown. A CCD
counts none: its gain, adu per photon, is estimated first as the least ratio of variance to mean that its background shows,
without a pedestal, and read-out noise is thinned as if it were photons. Such frames are nearly, not exactly, those of a
weaker beam.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from peaknet_pipeline.bench.held_run import HeldRun, held
from peaknet_pipeline.bench.unseen import BRIGHTNESS, simulate_unseen
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.usable import ALL_VALUES, UsableValues, are_usable
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.predict import table_axes
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.types import BoolArray, Float64Array, FrameArray, Geometry, UnitCell

Lattices = Mapping[int, Sequence[Float64Array]]
"""Conventional reciprocal axes, (3, 3) Å⁻¹ as columns, of each frame's lattices."""

BIN = 4
"""Side, pixels, of the squares whose sums show a CCD's noise: point spread correlates the pixels in them."""

SIMULATED_FILES = {"ortho_sharp": ("ortho.geom", "ortho.cell"), "sim1k": ("sim1k.geom", "lyso.cell")}
"""Runs that CrystFEL's pattern_sim made, with geometry and cell; in ``crystfel_simulated``."""


@dataclass(frozen=True)
class Case:
    """A run in memory, the cell it is searched with, its true lattices, and the pedestal of its pixels (adu)."""

    name: str
    run: HeldRun
    cell: UnitCell
    true: Lattices
    offset_adu: float = 0.0


def simulated_case(
    seed: int, n_frames: int, *, hit_fraction: float, brightness: tuple[float, float] = BRIGHTNESS
) -> Case:
    """Simulate a run of a random experiment, as ``bench shipped`` does."""
    made = simulate_unseen(seed, n_frames, hit_fraction=hit_fraction, brightness=brightness)
    experiment = made.experiment
    energy = made.truth.frames["photon_energy_ev"].to_numpy(np.float64)
    run = HeldRun(
        made.frames,
        experiment.geometry,
        bad_pixels=made.bad_pixels,
        photon_energy_ev=energy,
        name=experiment.name,
    )
    lattices = made.truth.lattices
    true: dict[int, list[Float64Array]] = {int(f): [] for f in lattices["frame"]}
    for frame, axes in zip(lattices["frame"], table_axes(lattices), strict=True):
        true[int(frame)].append(axes)
    return Case(f"{seed}", run, experiment.sample.cell, true, experiment.response.offset_adu)


def file_case(realdata: Path, name: str) -> Case:
    """Return a run of another program (``SIMULATED_FILES``), with the lattices that it wrote beside the frames."""
    folder = realdata / "crystfel_simulated"
    geometry, cell = SIMULATED_FILES[name]
    with open_run(folder / f"{name}.cxi", read_geometry(folder / geometry)) as run:
        made = held(run)
    with LinkedFiles(folder / f"{name}.cxi") as files:
        axes = read_whole(files.dataset("/truth/recip_invm")).astype(np.float64) * 1e-10
        counts = read_whole(files.dataset("/truth/n_lattices"))
    true = {f: [axes[f, k].T for k in range(n)] for f, n in enumerate(counts) if n}
    return Case(name, made, read_cell(folder / cell), true)


def still_cases(realdata: Path) -> Iterator[Case]:
    """Give real stills whose lattices are not known yet; those of a CCD with an estimated gain in their geometry."""
    for name in ("thaumatin", "snase"):
        folder = realdata / name
        with open_run(folder / "stills.h5", read_geometry(folder / "stills.geom")) as run:
            made = held(run)
        case = Case(name, made, read_cell(folder / f"{name}.cell"), {})
        yield case if name == "thaumatin" else with_gain(case)


def with_gain(case: Case) -> Case:
    """Return a CCD's case with its estimated gain in the geometry."""
    geometry = geometry_of(case.run)
    gain = estimate_gain(case.run.frames, case.run.bad_pixels, usable=case.run.usable)
    panels = tuple(replace(panel, adu_per_photon=gain) for panel in geometry.panels)
    return _with_frames(case, case.run.frames, replace(geometry, panels=panels))


def estimate_gain(frames: FrameArray, bad_pixels: BoolArray, *, usable: UsableValues = ALL_VALUES) -> float:
    """Return the adu per photon of frames (n, n_panels, ss, fs) that count none: the least ratio of variance to mean.

    Photons make a variance of gain · mean; texture of the background, spots and read-out noise only add to it, so that the
    least ratio over twenty ranges of the mean is nearest to the gain. Variances are those of sums over squares of ``BIN``
    pixels, in second differences along fs (var = 6 σ², a sloping background doesn't count), with σ = 1.4826 times the median
    absolute difference. A pedestal that isn't subtracted, and point spread beyond the squares, make the gain too low.
    """
    means, differences = [], []
    for frame in frames:
        for panel, bad in zip(frame, bad_pixels, strict=True):
            good = ~bad & are_usable(panel.astype(np.float32), usable)
            sums, whole = _binned(panel.astype(np.float64), good)
            kept = whole[:, :-2] & whole[:, 1:-1] & whole[:, 2:]
            means.append(((sums[:, :-2] + sums[:, 1:-1] + sums[:, 2:]) / (3 * BIN**2))[kept])
            differences.append((sums[:, :-2] - 2.0 * sums[:, 1:-1] + sums[:, 2:])[kept])
    mean, difference = np.concatenate(means), np.concatenate(differences)
    ranges = np.array_split(np.argsort(mean), 20)
    level = np.array([np.median(mean[part]) for part in ranges])
    sigma = np.array([1.4826 * np.median(np.abs(difference[part])) for part in ranges])
    ratio = sigma**2 / (6.0 * BIN**2) / np.maximum(level, 1e-9)
    return float(ratio[level > 0].min())


def _binned(panel: Float64Array, good: BoolArray) -> tuple[Float64Array, BoolArray]:
    rows, columns = (n // BIN for n in panel.shape)
    squares = panel[: rows * BIN, : columns * BIN].reshape(rows, BIN, columns, BIN)
    whole = good[: rows * BIN, : columns * BIN].reshape(rows, BIN, columns, BIN)
    return squares.sum(axis=(1, 3)), np.asarray(whole.all(axis=(1, 3)))


def thinned(case: Case, share: float, *, seed: int = 9) -> Case:
    """Return a case each of whose photons is kept with the chance ``share``; unusable values stay as they are."""
    if share >= 1.0:
        return case
    geometry, frames, usable = geometry_of(case.run), case.run.frames, case.run.usable
    generator = np.random.default_rng((seed, round(1e6 * share)))
    made = frames.copy()
    for number, panel in enumerate(geometry.panels):
        values = frames[:, number]
        photons = np.rint((values.astype(np.float64) - case.offset_adu) / panel.adu_per_photon)
        kept = are_usable(values.astype(np.float32), usable) & (photons >= 0)
        few = generator.binomial(np.where(kept, photons, 0).astype(np.int64), share)
        lower = case.offset_adu + panel.adu_per_photon * few
        if np.issubdtype(frames.dtype, np.integer):
            lower = np.rint(lower)
        made[:, number] = np.where(kept, lower, values)
    return _with_frames(case, made, geometry)


def _with_frames(case: Case, frames: FrameArray, geometry: Geometry) -> Case:
    run = HeldRun(
        frames,
        geometry,
        bad_pixels=case.run.bad_pixels,
        photon_energy_ev=case.run.photon_energy_ev,
        name=case.name,
    )
    return replace(case, run=run)
