"""The report's pictures of an experiment, drawn from the tables that the stages left; runs are pooled."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.hdf5.chunks import read_whole
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.metrics import frame_panel_key
from peaknet_pipeline.pairing import match_points
from peaknet_pipeline.plots.curves import plot_hit_rate_over_time
from peaknet_pipeline.plots.distributions import (
    plot_cells,
    plot_orientations,
    plot_panel_residuals,
    plot_peakogram,
    plot_peaks_per_frame,
    plot_resolution,
)
from peaknet_pipeline.plots.images import Extent, Ring, plot_frame_peaks, plot_image, plot_mask
from peaknet_pipeline.plots.style import name_of
from peaknet_pipeline.report import ReportFigure
from peaknet_pipeline.runs.masks import read_mask
from peaknet_pipeline.runs.run import geometry_of
from peaknet_pipeline.schemas import INDEX, PEAKS, REFLECTIONS, IndexTable, PeakTable, ReflectionTable, Schema
from peaknet_pipeline.steps.peak_tables import positions_px
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import FINDERS, index_path, peaks_path, reflections_path, statistics_path
from peaknet_pipeline.store.run_files import RunContext, cell_file, open_raw, read_context
from peaknet_pipeline.tables import read_table, read_table_metadata
from peaknet_pipeline.types import HC_EV_ANGSTROM, Float32Array, Geometry, IntArray

RING_D = (20.0, 12.0, 8.0, 6.0, 5.0, 4.0, 3.5, 3.0, 2.5, 2.2, 2.0, 1.8, 1.6, 1.4, 1.2, 1.0)
"""Resolutions, Å, of which the rings that fit are drawn."""
MOST_RINGS = 4
FAR_PX = 5.0
"""Largest distance of a found peak from the reflection that it is compared with."""


@dataclass(frozen=True)
class Pool:
    """The runs that a report draws, all with the geometry of the last one."""

    store: Store
    keys: tuple[str, ...]

    @cached_property
    def finders(self) -> tuple[str, ...]:
        """The finders that every one of these runs was taken through: the classical one alone before inference."""
        return tuple(f for f in FINDERS if all(is_drawable(self.store, key, f) for key in self.keys))

    @cached_property
    def context(self) -> RunContext:
        """The last run's experiment and cell."""
        return read_context(self.store, self.keys[-1])

    @cached_property
    def geometry(self) -> Geometry:
        """The last run's geometry, with its camera length, photon energy and gain."""
        with open_raw(self.context) as run:
            return geometry_of(run)

    @cached_property
    def n_frames(self) -> dict[str, int]:
        """Frames of each run."""
        paths = {key: peaks_path(self.store, key, "classical") for key in self.keys}
        return {key: int(read_table_metadata(path)["n_frames"]) for key, path in paths.items()}

    @cached_property
    def peaks(self) -> dict[str, PeakTable]:
        """Each finder's peaks; frames are counted on from run to run."""
        return {
            f: self._join([peaks_path(self.store, key, f) for key in self.keys], PEAKS) for f in self.finders
        }

    @cached_property
    def lattices(self) -> dict[str, IndexTable]:
        """Lattices of each finder's peaks."""
        return {
            f: self._join([index_path(self.store, key, f) for key in self.keys], INDEX) for f in self.finders
        }

    def reflections(self, finder: str) -> ReflectionTable:
        """Return the reflections predicted from one finder's lattices."""
        return self._join([reflections_path(self.store, key, finder) for key in self.keys], REFLECTIONS)

    def _join(self, paths: Sequence[Path], schema: Schema) -> pd.DataFrame:
        starts = np.cumsum([0, *self.n_frames.values()])
        tables = [read_table(path, schema) for path in paths]
        moved = [t.assign(frame=t["frame"] + int(n)) for t, n in zip(tables, starts, strict=False)]
        return pd.concat(moved, ignore_index=True)


def detector_figures(pool: Pool) -> Iterator[ReportFigure]:
    """Yield the virtual powder with resolution rings, and the bad pixels of the last run."""
    bad = read_mask(statistics_path(pool.store, pool.keys[-1]))[0]
    geometry, energy = pool.geometry, pool.geometry.photon_energy_ev or np.nan
    extent = image_extent(geometry)
    powder = np.asarray(assemble(_pooled_maximum(pool), geometry), dtype=np.float32)
    rings = resolution_rings(geometry, energy, extent)
    frames = sum(pool.n_frames.values())
    told = f"Each good pixel's maximum over {frames:,} frames of {len(pool.keys)} runs. Rings: d at {energy:.0f} eV."
    yield ReportFigure(plot_image(powder, title="Virtual powder", extent=extent, rings=rings), told)
    mask = np.asarray(assemble(bad.astype(np.float32), geometry), dtype=np.float32)
    yield ReportFigure(
        plot_mask(mask, title="Bad pixels", extent=extent, stack=bad),
        f"Pixels left out in {pool.keys[-1]}, the last run.",
    )


def _pooled_maximum(pool: Pool) -> Float32Array:
    """Return each good pixel's maximum over the runs that share the last one's shape, (n_panels, ss, fs)."""
    shape = pool.geometry.stack_shape
    pooled: Float32Array = np.full(shape, np.nan, dtype=np.float32)
    for key in pool.keys:
        path = statistics_path(pool.store, key)
        with LinkedFiles(path) as files:
            maximum = read_whole(files.dataset("/maximum"))
        if maximum.shape == shape:
            pooled = np.fmax(pooled, np.where(read_mask(path)[0], np.nan, maximum).astype(np.float32))
    return pooled


def resolution_rings(geometry: Geometry, photon_energy_ev: float, extent: Extent) -> list[Ring]:
    """Return up to four rings, radius in pixels and d in words, that lie within the image."""
    if not np.isfinite(photon_energy_ev):
        return []
    panel = geometry.panels[0]
    wavelength, reach = HC_EV_ANGSTROM / photon_energy_ev, max(abs(side) for side in extent)
    rings = []
    for d in RING_D:
        sine = wavelength / (2 * d)
        radius = np.tan(2 * np.arcsin(sine)) * panel.clen_m / panel.pixel_size_m if sine < 0.7 else np.inf
        if 0.15 * reach < radius < reach:
            rings.append((float(radius), f"{d:g} Å"))
    step = -(-len(rings) // MOST_RINGS)
    return rings[:: max(step, 1)]


def peak_figures(pool: Pool) -> Iterator[ReportFigure]:
    """Yield hit rate over time, peaks per frame, resolution and peakograms."""
    frames, counted = sum(pool.n_frames.values()), f"{len(pool.keys)} runs, one after another"
    min_peaks = pool.context.experiment.min_peaks
    yield ReportFigure(
        plot_hit_rate_over_time(pool.peaks, n_frames=frames, min_peaks=min_peaks, title="Hit rate over time"),
        f"Hits (≥ {min_peaks} peaks) / frames along {counted}; dotted: mean over all {frames:,} frames.",
    )
    yield ReportFigure(
        plot_peaks_per_frame(pool.peaks, n_frames=frames, min_peaks=min_peaks, title="Peaks per frame"),
        f"How many of {frames:,} frames have how many peaks; dashed: from here on a frame is a hit.",
    )
    yield ReportFigure(
        plot_resolution(pool.peaks, title="Resolution"),
        "Peaks per shell of 1/d, both finders on the same frames.",
    )
    for finder, table in pool.peaks.items():
        yield ReportFigure(
            plot_peakogram(
                table, title=f"Peakogram, {name_of(finder)}", saturation=pool.geometry.saturation_adu
            ),
            "Highest pixel of each peak against 1/d: saturation is an edge at the top, ice and salt are columns.",
        )


def lattice_figures(pool: Pool) -> Iterator[ReportFigure]:
    """Yield cells, orientations and residuals per panel, where anything is indexed."""
    found = {finder: table for finder, table in pool.lattices.items() if len(table)}
    if not found:
        return
    counts = ", ".join(
        f"{name_of(f)}: {len(t):,} lattices in {t['frame'].nunique():,} frames" for f, t in found.items()
    )
    cell = read_cell(cell_file(pool.context))
    yield ReportFigure(
        plot_cells(found, cell, title="Unit cells"),
        f"Cell parameters of every lattice; dashed: known cell. {counts}.",
    )
    yield ReportFigure(
        plot_orientations(found, title="Orientations"),
        "Where a* and c* of each lattice point, upper hemisphere around the beam: random orientations fill the disc evenly.",
    )
    finder = "peaknet" if "peaknet" in found else next(iter(found))
    residuals = panel_residuals(pool.peaks[finder], pool.reflections(finder))
    yield ReportFigure(
        plot_panel_residuals(residuals, title="Residuals per panel"),
        f"Found minus predicted position of {len(residuals):,} peaks ({name_of(finder)}) within {FAR_PX:g} px of a "
        "reflection; a shifted panel stands away from zero.",
    )


def panel_residuals(peaks: PeakTable, reflections: ReflectionTable) -> pd.DataFrame:
    """Return ``panel, d_fs, d_ss`` (found minus predicted, pixels) of the one-to-one pairs of peaks and reflections."""
    pairs = match_points(
        frame_panel_key(peaks), peaks["fs"], peaks["ss"],
        frame_panel_key(reflections), reflections["fs"], reflections["ss"], max_distance=FAR_PX,
    )  # fmt: skip
    a, b = peaks.iloc[pairs.a].reset_index(drop=True), reflections.iloc[pairs.b].reset_index(drop=True)
    return pd.DataFrame({"panel": a["panel"], "d_fs": a["fs"] - b["fs"], "d_ss": a["ss"] - b["ss"]})


def example_figures(pool: Pool) -> Iterator[ReportFigure]:
    """Yield frames with the peaks of both finders: a typical hit, the richest frame, and where the finders differ most."""
    frames = sum(pool.n_frames.values())
    counts = {f: np.bincount(t["frame"].to_numpy(np.int64), minlength=frames) for f, t in pool.peaks.items()}
    for number, why in _examples(counts):
        told = ", ".join(
            f"{name_of(finder)} finds {counted[number]} peaks" for finder, counted in counts.items()
        )
        yield _example(pool, number, f"{why}: {told}.")


def _examples(counts: Mapping[str, IntArray]) -> Iterator[tuple[int, str]]:
    best = counts["peaknet" if "peaknet" in counts else "classical"]
    hits = np.flatnonzero(best > 0)
    if not hits.size:
        return
    ordered = hits[np.argsort(best[hits], kind="stable")]
    chosen = {
        int(ordered[len(ordered) // 2]): "A typical frame with peaks",
        int(ordered[-1]): "The frame with the most peaks",
    }
    if len(counts) > 1:
        spread = np.ptp(np.stack([counted.astype(np.int64) for counted in counts.values()]), axis=0)
        chosen[int(np.argmax(spread))] = "Where the finders differ most"
    yield from chosen.items()


def _example(pool: Pool, number: int, told: str) -> ReportFigure:
    key, frame = _run_of(pool, number)
    with open_raw(read_context(pool.store, key)) as run:
        geometry = geometry_of(run)
        image = assemble(run.read(frame, frame + 1)[0], geometry)
    shown = {f: positions_px(t[t["frame"] == number], geometry) for f, t in pool.peaks.items()}
    png = plot_frame_peaks(image, shown, title=f"{key}, frame {frame}", extent=image_extent(geometry))
    return ReportFigure(png, f"{told} {key}, frame {frame}.")


def _run_of(pool: Pool, number: int) -> tuple[str, int]:
    for key, frames in pool.n_frames.items():
        if number < frames:
            return key, number
        number -= frames
    raise IndexError(number)


def drawable(store: Store, keys: Sequence[str]) -> list[str]:
    """Return the runs that have what is drawn, of the classical finder at least."""
    return [key for key in keys if is_drawable(store, key, "classical")]


def is_drawable(store: Store, key: str, finder: str) -> bool:
    """Tell whether a run has its statistics and all that one finder's pictures are drawn from."""
    needed = [path(store, key, finder) for path in (peaks_path, index_path, reflections_path)]
    return all(path.is_file() for path in (statistics_path(store, key), *needed))
