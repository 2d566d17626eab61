"""Benchmark of the second look: what it adds to each finder's list, what it costs, and what its scrambled copies reach.

Every set of frames is indexed four times, by the peaks of a peakfinder8 tuned on those very frames and by the shipped
network's, without and with the second look. A lattice is right within :data:`RIGHT_DEG` of a true one; of real stills the
full frames' lattices, by the list alone, are the truth for their thinned copies.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.bench.real_stills import find_with_network
from peaknet_pipeline.bench.second_look_cases import (
    SIMULATED_FILES,
    Case,
    Lattices,
    file_case,
    simulated_case,
    still_cases,
    thinned,
)
from peaknet_pipeline.bench.second_look_plots import plot_copies, plot_thinned
from peaknet_pipeline.bench.unseen import BRIGHTNESS, tune_on_frames
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import table_axes
from peaknet_pipeline.indexing.second_look.acceptance import false_rate_limit
from peaknet_pipeline.indexing.second_look.run_params import RunSecondLookParams
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.learn.checkpoint import LoadedModel
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.steps.find_with_network import load_model
from peaknet_pipeline.steps.look_again import look_again

RIGHT_DEG = 0.5
"""Misorientation below which a lattice is a true one."""

FINDERS = ("classical", "peaknet")

USUAL_SEED, DIM_SEED, DIM = 930_000_000, 940_000_000, (0.03, 0.3)
"""First seeds of the experiments that are reported, and the brightness of the dim ones."""

SHARES = (1.0, 1 / 3, 0.1, 1 / 30, 0.01, 0.003, 0.001)
"""Shares of their photons that real stills keep."""

QUANTILES = (0.5, 0.9, 0.99, 1.0)


def run(
    *,
    usual: int = 12,
    dim: int = 12,
    first: int = 0,
    usual_seed: int = USUAL_SEED,
    dim_seed: int = DIM_SEED,
    frames: int = 16,
    hit_fraction: float = 0.75,
    brightness: tuple[float, float] = DIM,
    n_controls: int = 45,
    realdata: str | None = None,
    file_shares: tuple[float, ...] = (1.0, 0.3),
    shares: tuple[float, ...] = SHARES,
    finders: tuple[str, ...] = FINDERS,
    out: str | None = None,
) -> dict[str, Any]:
    """Measure the second look on unseen experiments, on frames of another program, and on real stills thinned.

    Parameters
    ----------
    usual, dim : int
        Simulated experiments of each kind, in turn; number ``first`` and those after it.
    usual_seed, dim_seed : int
        Seed of the first of each kind.
    frames, hit_fraction : int, float
        Of each simulated experiment.
    brightness : (float, float)
        Of the dim crystals, as a multiple of each experiment's own.
    n_controls : int
        Scrambled copies of each run and finder.
    realdata : str, optional
        Folder with real stills and with frames of another program; ``file_shares`` and ``shares`` are the shares of their
        photons that these and those keep.
    finders : tuple of str
        ``classical``, ``peaknet``, or both.
    out : str, optional
        Folder for the figures of each set as they come (``second_look.jsonl``) and for the two plots.

    Returns
    -------
    dict
        ``usual``, ``dim``, ``files`` and ``stills`` with the sums of their sets, ``copies``, ``sets``.

    """
    unknown = sorted(set(finders) - set(FINDERS))
    if unknown:
        raise ParameterError("no such finder", expected=" or ".join(FINDERS), found=", ".join(unknown))
    bench = _Bench(RunSecondLookParams(n_controls=n_controls), tuple(finders), Path(out) if out else None)
    kinds = {"usual": (usual, usual_seed, BRIGHTNESS), "dim": (dim, dim_seed, (brightness[0], brightness[1]))}
    for number in range(first, first + max(usual, dim)):
        for kind, (count, seed, factors) in kinds.items():
            if number < first + count:
                case = simulated_case(seed + number, frames, hit_fraction=hit_fraction, brightness=factors)
                bench.measure(kind, case)
    if realdata is not None:
        for name in SIMULATED_FILES:
            case = file_case(Path(realdata), name)
            for share in file_shares:
                bench.measure("files", thinned(case, share), share=share)
        for case in still_cases(Path(realdata)):
            bench.measure_thinned(case, shares)
    return bench.figures()


class _Bench:
    """Measures one set of frames after another and keeps their figures."""

    def __init__(self, params: RunSecondLookParams, finders: tuple[str, ...], out: Path | None) -> None:
        self.params, self.finders, self.out = params, finders, out
        self.model = load_model(None)
        self.sets: list[dict[str, Any]] = []

    def measure(self, kind: str, case: Case, *, share: float = 1.0) -> None:
        """Index a set of frames with each finder, without and with the second look."""
        about = {"kind": kind, "name": case.name, "share": share, "frames": case.run.n_frames}
        true = sum(len(lattices) for lattices in case.true.values())
        about |= {"hits": len(case.true), "true_lattices": true}
        for finder in self.finders:
            peaks = find_peaks(case, finder, self.model)
            about[finder] = measure_finder(case, index_case(case, peaks), self.params)
        self.sets.append(about)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / "second_look.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(about) + "\n")

    def measure_thinned(self, case: Case, shares: tuple[float, ...]) -> None:
        """Take the full frames' lattices, by the tuned list alone, as the truth of their thinned copies."""
        lattices = index_case(case, find_peaks(case, "classical", self.model))
        known = Case(case.name, case.run, case.cell, lattices_of(lattices), case.offset_adu)
        for share in shares:
            self.measure("stills", thinned(known, share), share=share)

    def figures(self) -> dict[str, Any]:
        """Return the sums, and draw the plots."""
        scores = [s for one in self.sets for f in self.finders for s in one[f]["copy_scores"]]
        finite = np.array([s for s in scores if np.isfinite(s)])
        copies = {
            "n": len(scores),
            "above_their_formula": sum(
                one[f]["highest_copy"] > one[f]["floor"] for one in self.sets for f in self.finders
            ),
            "false_rate_limit": round(false_rate_limit(len(scores)), 5),
            "quantiles_nats": {f"{q:g}": round(float(np.quantile(finite, q)), 2) for q in QUANTILES}
            if finite.size
            else {},
        }
        kinds = [kind for kind in ("usual", "dim", "files") if any(s["kind"] == kind for s in self.sets)]
        figures: dict[str, Any] = {
            kind: add_up([s for s in self.sets if s["kind"] == kind], self.finders) for kind in kinds
        }
        figures |= {"copies": copies, "sets": self.sets}
        if self.out is not None and finite.size:
            bars = [one[f]["bar"] for one in self.sets for f in self.finders]
            plot_copies(finite, np.array(bars), self.out / "second_look_copies.png")
            figures["plots"] = [str(self.out / "second_look_copies.png")]
            stills = [s for s in self.sets if s["kind"] == "stills"]
            if stills:
                plot_thinned(stills, self.finders, self.out / "second_look_thinned.png")
                figures["plots"].append(str(self.out / "second_look_thinned.png"))
        return figures


def find_peaks(case: Case, finder: str, model: LoadedModel) -> PeakTable:
    """Return the peaks of a peakfinder8 tuned on the frames, or of the network."""
    run = case.run
    if finder == "peaknet":
        return find_with_network(run, model, range(run.n_frames))
    geometry = geometry_of(run)
    setting = tune_on_frames(
        run.frames,
        lambda peaks: index_case(case, peaks),
        geometry=geometry,
        bad_pixels=run.bad_pixels,
        offset_adu=case.offset_adu,
        adu_per_photon=geometry.panels[0].adu_per_photon,
    )
    return Peakfinder8(pixel_radius(geometry), run.bad_pixels, setting, usable=run.usable).find(run.frames)


def index_case(case: Case, peaks: PeakTable) -> IndexTable:
    """Return the list indexer's lattices of peaks."""
    return index_peaks(
        peaks,
        geometry=geometry_of(case.run),
        photon_energy_ev=case.run.photon_energy_ev,
        cell=case.cell,
        params=IndexParams(),
    )


def measure_finder(case: Case, lattices: IndexTable, params: RunSecondLookParams) -> dict[str, Any]:
    """Return what a list indexed, what the second look adds to it, and what that cost."""
    look = look_again(case.run, lattices, bad_pixels=case.run.bad_pixels, cell=case.cell, params=params)
    found = look.table[look.table["origin"] == "second look"]
    both = pd.concat([lattices[["frame", *_axes_of(lattices)]], found[["frame", *_axes_of(lattices)]]])
    return {
        "list": count_right(lattices, case),
        "with_second_look": count_right(both, case),
        "accepted": count_right(found, case),
        "scores": [round(float(s), 1) for s in found["score"]],
        "bar": round(look.control.bar, 2),
        "floor": round(look.control.floor, 2),
        "highest_copy": round(look.control.highest, 2),
        "copy_scores": [round(float(s), 2) for s in look.control.scores],
        "frames_behind_the_model": look.model.n_frames,
        "searched": look.n_searched,
        "search_ms": round(1e3 * look.seconds[0], 1),
        "ms_per_frame": round(1e3 * look.seconds[1] / max(case.run.n_frames, 1), 1),
    }


def _axes_of(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if "star_" in name]


def lattices_of(table: pd.DataFrame) -> dict[int, list[Any]]:
    """Return a table's lattices by frame."""
    found: dict[int, list[Any]] = {int(f): [] for f in table["frame"]}
    for frame, axes in zip(table["frame"], table_axes(table), strict=True):
        found[int(frame)].append(axes)
    return found


def count_right(table: pd.DataFrame, case: Case) -> dict[str, int]:
    """Count frames with a lattice, with a right one, lattices, right ones and wrong ones."""
    frames = lattices_of(table)
    right = {f: _matched(axes, case.true, f, case) for f, axes in frames.items()}
    n_lattices, n_right = len(table), sum(right.values())
    return {
        "frames": len(frames),
        "frames_right": sum(n > 0 for n in right.values()),
        "lattices": n_lattices,
        "lattices_right": n_right,
        "lattices_wrong": n_lattices - n_right,
    }


def _matched(axes: list[Any], true: Lattices, frame: int, case: Case) -> int:
    """Count a frame's lattices that are true ones, each true lattice once."""
    left = list(true.get(frame, ()))
    for one in axes:
        off = [misorientation_deg(one, other, case.cell) for other in left]
        if off and min(off) < RIGHT_DEG:
            left.pop(int(np.argmin(off)))
    return len(true.get(frame, ())) - len(left)


def add_up(sets: list[dict[str, Any]], finders: tuple[str, ...]) -> dict[str, Any]:
    """Return sums over sets: per finder the list, with the second look, the gain in points of frames, and time."""
    total: dict[str, Any] = {name: sum(s[name] for s in sets) for name in ("frames", "hits", "true_lattices")}
    for finder in finders:
        parts: dict[str, Mapping[str, int]] = {
            part: _sums([s[finder][part] for s in sets]) for part in ("list", "with_second_look", "accepted")
        }
        gain = parts["with_second_look"]["frames_right"] - parts["list"]["frames_right"]
        total[finder] = {
            **parts,
            "points_gained": round(100.0 * gain / max(total["frames"], 1), 2),
            "copies": sum(len(s[finder]["copy_scores"]) for s in sets),
            "search_ms": round(float(np.median([s[finder]["search_ms"] for s in sets])), 1),
            "ms_per_frame": round(float(np.median([s[finder]["ms_per_frame"] for s in sets])), 1),
        }
    if set(finders) == set(FINDERS):
        best = (
            total["peaknet"]["with_second_look"]["frames_right"] - total["classical"]["list"]["frames_right"]
        )
        total["peaknet_with_second_look_over_the_tuned_list"] = round(
            100.0 * best / max(total["frames"], 1), 2
        )
    return total


def _sums(counts: list[dict[str, int]]) -> dict[str, int]:
    return {name: sum(c[name] for c in counts) for name in counts[0]}
