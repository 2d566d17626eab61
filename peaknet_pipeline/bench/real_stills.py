"""The shipped network on real stills with CrystFEL's peak lists, and on frames that CrystFEL simulated.

A list names what one finder shows at one threshold: a peak that it leaves out isn't thereby false. So precision is told
twice: against the list alone, and against the list or CrystFEL's lattice. A peak is on the lattice if its Miller indices
are within :data:`ON_LATTICE` of whole numbers, CrystFEL's own criterion. Chance puts peaks there as well: the same peaks
with their azimuths scrambled about the beam tell which share, c. And not all true peaks are there (further crystals,
an unrefined geometry): of those that both the list and the network hold, a share l is. With a share u of the unlisted
ones there, (u - c) / (l - c) of them are as true as listed peaks are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.lattice import AXIS_COLUMNS
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.qvectors import spot_vectors
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.metrics import frame_panel_key
from peaknet_pipeline.pairing import match_points
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.schemas import PeakTable
from peaknet_pipeline.steps.index_run import index_with_control
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, Geometry, IntArray

ON_LATTICE = 0.25
"""Distance of each Miller index from a whole number below which a peak is on the lattice."""

NEAR_PX = 3.0
CONFIRMING, SHIFT_PX = 5.0, 20.0
"""Threshold (photons) of the confirming peakfinder8 where no lattice is known; shift that shows what chance gives."""

SCRAMBLES = 20
TRUTH_COLUMNS = ("panel", "fs", "ss", "photons", "background", "brightest", "snr", "good")

LEAST_SNR = 5.0
"""Expected SNR, in the 3x3 pixels around a simulated spot, from which it counts in recall."""


@dataclass(frozen=True)
class Stills:
    """A folder of stills: run, geometry, target cell if known, and the data set that the network sees."""

    name: str
    run: str
    geometry: str
    cell: str | None = None


REAL = (
    Stills("snase", "stills.h5", "stills.geom", "snase.cell"),
    Stills("thaumatin", "stills.h5", "stills.geom", "thaumatin.cell"),
    Stills("pilatus6m", "still.h5", "still.geom"),
)
SIMULATED = ("sim1k", "jf4m")


def measure_stills(realdata: Path, model: LoadedModel) -> dict[str, Any]:
    """Return the figures of every folder that is there."""
    figures: dict[str, Any] = {}
    for stills in REAL:
        folder = realdata / stills.name
        if folder.is_dir():
            with open_run(folder / stills.run, read_geometry(folder / stills.geometry)) as run:
                figures[stills.name] = measure_listed(run, folder, stills, model)
    folder = realdata / "crystfel_simulated"
    for name in SIMULATED if folder.is_dir() else ():
        with open_run(folder / f"{name}.cxi", read_geometry(folder / f"{name}.geom")) as run:
            figures[name] = measure_simulated(run, model)
    return figures


def measure_listed(
    run: Run, folder: Path, stills: Stills, model: LoadedModel, frames: Sequence[int] | None = None
) -> dict[str, Any]:
    """Compare some frames, or all, with CrystFEL's list and lattices; index if the cell is known."""
    frames = range(run.n_frames) if frames is None else frames
    listed = pd.read_csv(folder / "crystfel_peaks.csv")[["frame", "fs", "ss"]].assign(panel=0)
    listed = listed[listed["frame"].isin(frames)]
    peaks = find_with_network(run, model, frames)
    hit = np.zeros(len(peaks), dtype=bool)
    pairs = _pair(peaks, listed)
    hit[pairs] = True
    figures: dict[str, Any] = {
        "listed": len(listed),
        "found": len(peaks),
        "recall": round(len(pairs) / len(listed), 4),
        "precision_list": round(len(pairs) / max(len(peaks), 1), 4),
        "peaks_per_frame": peaks.groupby("frame").size().to_dict(),
    }
    if stills.cell is None:
        return figures | {"confirmed_by_peakfinder8": _confirmed(run, peaks[~hit])}
    axes = pd.read_csv(folder / "crystfel_crystals.csv").set_index("frame")
    axes.columns = pd.Index(AXIS_COLUMNS)
    figures |= lattice_precision(peaks, hit, axes, geometry_of(run), run.photon_energy_ev)
    table, control = index_with_control(
        peaks, geometry_of(run), run.photon_energy_ev, read_cell(folder / stills.cell), IndexParams()
    )
    return figures | {
        "indexed_frames": sorted({int(f) for f in table["frame"]}),
        "false_indexed": control.n_indexed,
        "scrambled": control.n_scrambled,
    }


def lattice_precision(
    peaks: PeakTable, listed: BoolArray, axes: pd.DataFrame, geometry: Geometry, energy: Float64Array
) -> dict[str, float]:
    """Return precision against list or lattice over the frames that have a lattice, as this module defines it."""
    known = peaks["frame"].isin(axes.index).to_numpy()
    rows, listed = peaks[known], listed[known]
    bases = axes.loc[rows["frame"]].to_numpy().reshape(-1, 3, 3)
    q = spot_vectors(rows, geometry=geometry, photon_energy_ev=energy)
    on, generator = _on_lattice(q, bases), np.random.default_rng(0)
    chance = float(np.mean([_on_lattice(_turned(q, generator), bases).mean() for _ in range(SCRAMBLES)]))
    of_listed, of_rest = (float(on[part].mean()) if part.any() else 0.0 for part in (listed, ~listed))
    true = float(np.clip((of_rest - chance) / max(of_listed - chance, 1e-9), 0, 1)) * int((~listed).sum())
    return {
        "listed_on_lattice": round(of_listed, 4),
        "unlisted_on_lattice": round(of_rest, 4),
        "chance_on_lattice": round(chance, 4),
        "precision_list_or_lattice": round((int(listed.sum()) + true) / max(len(rows), 1), 4),
        "peaks_in_frames_with_lattice": len(rows),
    }


def measure_simulated(run: Run, model: LoadedModel, frames: Sequence[int] | None = None) -> dict[str, Any]:
    """Compare some frames, or all, with CrystFEL's simulated spots, counted from :data:`LEAST_SNR`."""
    frames = range(run.n_frames) if frames is None else frames
    peaks = find_with_network(run, model, frames)
    truth = truth_of_file(run, frames)
    strong = truth[(truth["snr"] >= LEAST_SNR) & truth["good"]]
    found = len(_pair(peaks, strong))
    true = len(_pair(peaks, truth[(truth["snr"] >= 1.0) | ~truth["good"]]))
    blank = [n for n in frames if n not in set(truth["frame"])]
    return {
        "strong_spots": len(strong),
        "recall": round(found / max(len(strong), 1), 4),
        "precision": round(true / max(len(peaks), 1), 4),
        "found": len(peaks),
        "peaks_per_blank_frame": float(peaks["frame"].isin(blank).sum() / max(len(blank), 1)),
    }


def find_with_network(run: Run, model: LoadedModel, frames: Sequence[int]) -> PeakTable:
    """Return the network's peaks of these frames, as ``peaknet find`` gives them without any setting."""
    decode, params = InferenceParams(device="cpu").parts()
    network = Network.from_checkpoint(model)
    engine = Engine(
        network, bad_pixels=run.bad_pixels, decode=decode, params=params, geometry=geometry_of(run)
    )
    return pd.concat([engine(run.read(n, n + 1), n) for n in frames], ignore_index=True)


def _pair(peaks: PeakTable, spots: pd.DataFrame) -> IntArray:
    """Return the rows of the peaks that pair one to one with spots."""
    keys = [frame_panel_key(table) for table in (peaks, spots)]
    pairs = match_points(
        keys[0], peaks["fs"], peaks["ss"], keys[1], spots["fs"], spots["ss"], max_distance=NEAR_PX
    )
    return pairs.a


def _on_lattice(q: Float64Array, bases: Float64Array) -> BoolArray:
    """Say of each q (n, 3) whether its indices in its own basis, rows **a***, **b***, **c***, are nearly whole."""
    indices = np.einsum("nj,nji->ni", q, np.linalg.inv(bases))
    return np.asarray((np.abs(indices - np.rint(indices)) < ON_LATTICE).all(axis=1))


def _turned(q: Float64Array, generator: np.random.Generator) -> Float64Array:
    angle, radius = generator.uniform(0, 2 * np.pi, len(q)), np.hypot(q[:, 0], q[:, 1])
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), q[:, 2]], axis=1)


def _confirmed(run: Run, peaks: PeakTable) -> dict[str, Any]:
    """Tell which share of peaks a peakfinder8 with a low threshold shows as well, and what chance would give."""
    geometry = geometry_of(run)
    params = Peakfinder8Params(threshold=CONFIRMING, min_snr=4.0, min_pix=2)
    finder = Peakfinder8(pixel_radius(geometry), run.bad_pixels, params, usable=run.usable)
    theirs = finder.find(run.read(0, run.n_frames))
    shifted = peaks.assign(ss=peaks["ss"] + SHIFT_PX)
    return {
        "unlisted": len(peaks),
        "of_them_found": round(len(_pair(peaks, theirs)) / max(len(peaks), 1), 4),
        "of_them_found_if_shifted": round(len(_pair(shifted, theirs)) / max(len(peaks), 1), 4),
        "peakfinder8_peaks": len(theirs),
    }


def truth_of_file(run: Run, frames: Sequence[int]) -> pd.DataFrame:
    """Return CrystFEL's simulated spots as frame, panel, fs, ss, photons, background, ``snr``, and ``good``.

    ``brightest`` is the share of the photons in the brightest pixel.
    """
    geometry = geometry_of(run)
    with LinkedFiles(run.info.path) as files:
        spots, n_spots = (read_whole(files.dataset(f"/truth/{name}")) for name in ("spots", "n_spots"))
    tables = []
    for frame, count in ((n, n_spots[n]) for n in frames):
        image = run.read(frame, frame + 1)[0].astype(np.float32) / geometry.panels[0].adu_per_photon
        tables.append(
            _truth_of_frame(image, run.bad_pixels, geometry, spots[frame, :count].astype(np.float32)).assign(
                frame=frame
            )
        )
    return pd.concat(tables, ignore_index=True)


def _truth_of_frame(
    image: Float32Array, bad: BoolArray, geometry: Geometry, spots: Float32Array
) -> pd.DataFrame:
    """Place slab positions (n, 4: fs, ss, photons, maximum) on panels; background: median of 15x15 pixels."""
    bad = bad | ~np.isfinite(image)
    rows = []
    for fs, ss, photons, maximum in spots:
        for number, panel in enumerate(geometry.panels):
            if (
                panel.min_ss - 0.5 <= ss < panel.max_ss + 0.5
                and panel.min_fs - 0.5 <= fs < panel.max_fs + 0.5
            ):
                x, y = round(fs - panel.min_fs), round(ss - panel.min_ss)
                near = (number, slice(max(y - 7, 0), y + 8), slice(max(x - 7, 0), x + 8))
                core = (number, slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2))
                level = np.median(image[near][~bad[near]]) if not bad[near].all() else 0.0
                snr = photons / np.sqrt(photons + 9 * max(level, 0.0) + 1e-9)
                whole = bad[core].size == 9 and not bad[core].any()
                share = maximum / max(photons, 1e-9)
                rows.append((number, fs - panel.min_fs, ss - panel.min_ss, photons, level, share, snr, whole))
    return pd.DataFrame(rows, columns=list(TRUTH_COLUMNS))
