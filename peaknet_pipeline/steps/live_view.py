"""What the page of a live stream shows: rates over time, the last hit with its lattice, the powder, peaks and cells so far.

Memory and work per batch are bounded, however long the stream: the history's intervals double when they are full, a frame is
kept only while somebody looks, and pictures are made at a size that a screen can show.
"""

import json
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.geometry.distance import camera_lengths_m, knows_distance
from peaknet_pipeline.geometry.maps import resolution_map
from peaknet_pipeline.geometry.usable import are_usable, usable_values
from peaknet_pipeline.hits import hit_frames
from peaknet_pipeline.indexing.predict import predict_reflections, table_cells
from peaknet_pipeline.infer.arrivals import Arrival
from peaknet_pipeline.infer.figure_server import Served
from peaknet_pipeline.infer.live_figures import LiveStatistics
from peaknet_pipeline.metrics import BEYOND
from peaknet_pipeline.plots.images import plot_image
from peaknet_pipeline.runs.rings import ICE_RINGS_ANGSTROM
from peaknet_pipeline.schemas import IndexTable, PeakTable
from peaknet_pipeline.steps.live_history import History
from peaknet_pipeline.steps.peak_tables import positions_px
from peaknet_pipeline.types import BoolArray, Float32Array, Float64Array, Geometry, UnitCell

MAX_SIDE = 1536
"""Pixels along a side of a picture at most; a larger detector is shown by the highest of k × k pixels."""

STEPS = 64
"""Codes of a picture's values per unit of asinh(value / noise): half a per cent to two per cent of the value."""

NO_VALUE = -(2**15)
WATCHED_S = 30.0
"""Seconds after a picture was asked for during which hits are kept for the next one."""

HIT_S = 1.0
"""Seconds between hits that are kept, at least."""

CELLS_KEPT = 2000
CELL_BINS = 32
INV_D_BINS, VALUE_BINS = 60, 40
LOG10_VALUES = (0.0, 6.0)
"""Range of the peakogram's highest pixel of a peak, log10 of the detector's units."""

PAGE = {"/": "live.html", "/live.css": "live.css", "/live.js": "live.js"}
KINDS = {"html": "text/html; charset=utf-8", "js": "text/javascript", "css": "text/css"}
CELL_LENGTHS, CELL_ANGLES = ("a", "b", "c"), ("alpha", "beta", "gamma")


class LiveView:
    """Watches a live stream for its page; safe to read from other threads while the stream runs.

    Parameters
    ----------
    geometry : Geometry
    statistics : LiveStatistics
    told : mapping
        What the page says of the stream, by name.
    clock : callable

    """

    def __init__(
        self,
        geometry: Geometry,
        statistics: LiveStatistics,
        told: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._statistics, self._told, self._clock = statistics, dict(told), clock
        self._lock = threading.Lock()
        self._history = History(clock())
        self._cells: deque[list[float]] = deque(maxlen=CELLS_KEPT)
        self._peakogram = np.zeros((INV_D_BINS, VALUE_BINS), dtype=np.int64)
        self._hit: tuple[int, Float32Array, PeakTable, IndexTable | None] | None = None
        self._hit_since = self._asked = -np.inf
        self._peaks_of_hits = self._n_hits = 0
        self.use(geometry, np.zeros(geometry.stack_shape, dtype=np.bool_))

    def use(self, geometry: Geometry, bad_pixels: BoolArray, cell: UnitCell | None = None) -> None:
        """Take what is known once the first frames are there; ``bad_pixels``, (n_panels, ss, fs), are not shown."""
        self._geometry, self._bad_pixels, self._cell = geometry, bad_pixels, cell
        self._usable = usable_values(geometry)
        self._energy = geometry.photon_energy_ev
        self._max_inv_d = 0.0
        if self._energy is not None and knows_distance(geometry):
            self._max_inv_d = float(resolution_map(geometry, self._energy).max())

    def add(self, arrival: Arrival, peaks: PeakTable, lattices: IndexTable | None) -> None:
        """Count a batch; keep its last hit, rather an indexed one, if somebody looks."""
        now = self._clock()
        hits = hit_frames(peaks, min_peaks=self._statistics.min_peaks)
        indexed = np.zeros(0, dtype=np.int64) if lattices is None else lattices["frame"].unique()
        in_hits = peaks[peaks["frame"].isin(hits)]
        with self._lock:
            self._history.add(
                now,
                n_frames=len(arrival.frames), n_hits=len(hits), n_indexed=len(indexed),
                latencies_s=now - arrival.times, waiting=arrival.waiting or 0, inv_d=_reached(in_hits),
            )  # fmt: skip
            self._peaks_of_hits += len(in_hits)
            self._n_hits += len(hits)
            if self._max_inv_d:
                self._peakogram += self._count_peaks(in_hits)
            if lattices is not None and len(lattices) and self._cell is not None:
                for cell in table_cells(lattices, self._cell):
                    self._cells.append([getattr(cell, name) for name in (*CELL_LENGTHS, *CELL_ANGLES)])
            wanted = self._hit is None or now - self._asked < WATCHED_S
            if len(hits) and wanted and now - self._hit_since >= HIT_S:
                self._hit_since = now
                self._hit = self._kept(arrival, peaks, lattices, int((indexed if len(indexed) else hits)[-1]))

    def _count_peaks(self, peaks: PeakTable) -> npt.NDArray[np.int64]:
        brightness = np.log10(np.maximum(peaks["max_intensity"].to_numpy(np.float64), 1.0))
        inv_d = peaks["inv_d"].to_numpy(np.float64)
        known = np.isfinite(inv_d) & np.isfinite(brightness)
        counts, _, _ = np.histogram2d(
            inv_d[known], brightness[known].clip(*LOG10_VALUES),
            bins=(INV_D_BINS, VALUE_BINS), range=((0.0, self._max_inv_d), LOG10_VALUES),
        )  # fmt: skip
        return np.asarray(counts, dtype=np.int64)

    def _kept(
        self, arrival: Arrival, peaks: PeakTable, lattices: IndexTable | None, number: int
    ) -> tuple[int, Float32Array, PeakTable, IndexTable | None]:
        frame = arrival.frames[int(np.flatnonzero(arrival.numbers == number)[0])]
        values = np.array(frame, dtype=np.float32)
        values[self._bad_pixels | ~are_usable(values, self._usable.of(frame.dtype.name))] = np.nan
        own = None if lattices is None else lattices[lattices["frame"] == number].assign(frame=0)
        return number, values, peaks[peaks["frame"] == number].assign(frame=0), own

    def served(self) -> dict[str, Served]:
        """Return what is served of it, by path: the page, the figures, the last hit and the powder."""
        room = files("peaknet_pipeline.steps").joinpath("live_page")
        page = {
            path: Served(KINDS[name.rpartition(".")[2]], room.joinpath(name).read_bytes)
            for path, name in PAGE.items()
        }
        binary = "application/octet-stream"
        return page | {
            "/live.json": Served("application/json", self.state, least_s=1.0, packed=True),
            "/hit.bin": Served(binary, self.hit, least_s=2.0, packed=True),
            "/powder.bin": Served(binary, self.powder, least_s=5.0, packed=True),
            "/powder.png": Served("image/png", self.powder_png, least_s=5.0),
        }

    def state(self) -> bytes:
        """Return figures, history, peakogram and cells so far, JSON."""
        figures = self._statistics.figures()
        with self._lock:
            state = {
                "told": self._told | ({} if self._cell is None else {"cell": str(self._cell)}),
                "running_s": self._clock() - self._history.start_s,
                "min_peaks": self._statistics.min_peaks,
                "figures": asdict(figures),
                "peaks_per_hit": self._peaks_of_hits / self._n_hits if self._n_hits else None,
                "history": self._history.columns(self._clock()),
                "hit": None if self._hit is None else self._hit[0],
                "peakogram": {
                    "max_inv_d": self._max_inv_d,
                    "log10_values": LOG10_VALUES,
                    "counts": self._peakogram.tolist(),
                },
                "cells": self._cell_histograms(),
            }
        return json.dumps(state, allow_nan=False).encode()

    def _cell_histograms(self) -> list[dict[str, Any]]:
        """Return a histogram of each cell parameter; the range holds nearly all lattices and the target."""
        if not self._cells or self._cell is None:
            return []
        values, shown = np.array(self._cells), []
        for column, name in enumerate((*CELL_LENGTHS, *CELL_ANGLES)):
            target, found = getattr(self._cell, name), values[:, column]
            unit, margin = ("Å", 0.01 * target) if name in CELL_LENGTHS else ("°", 0.5)
            half = max(float(np.quantile(np.abs(found - target), 0.98)) * 1.1, margin)
            counts, _ = np.histogram(
                found.clip(target - half, target + half), CELL_BINS, (target - half, target + half)
            )
            shown.append(
                {"name": name, "unit": unit, "target": target, "half": half, "counts": counts.tolist()}
                | {"median": float(np.median(found)), "n": len(found)}
            )
        return shown

    def hit(self) -> bytes:
        """Return the last hit that was kept: picture, peaks, predicted reflections; empty before the first one."""
        with self._lock:
            self._asked = self._clock()
            kept = self._hit
        if kept is None:
            return b""
        number, values, peaks, lattices = kept
        marks: dict[str, Any] = {"frame": number, "peaks": self._places(peaks), "lattices": []}
        if lattices is not None and len(lattices) and self._cell is not None and self._energy is not None:
            predicted = predict_reflections(
                lattices, peaks=peaks, cell=self._cell, geometry=self._geometry,
                photon_energy_ev=np.array([self._energy]),
            )  # fmt: skip
            for lattice, cell in zip(lattices["lattice"], table_cells(lattices, self._cell), strict=True):
                own = predicted[predicted["lattice"] == lattice]
                marks["lattices"].append({"cell": str(cell), "reflections": self._places(own)})
        return self._picture(values, marks)

    def powder(self) -> bytes:
        """Return the virtual powder as a picture; empty before the first frame."""
        stack = self._statistics.virtual_powder()
        return b"" if stack is None else self._picture(np.where(self._bad_pixels, np.nan, stack), {})

    def powder_png(self) -> bytes:
        """Return the virtual powder as a plot, for logbooks."""
        stack = self._statistics.virtual_powder()
        stack = np.full(self._geometry.stack_shape, np.nan, dtype=np.float32) if stack is None else stack
        image, extent = assemble(stack, self._geometry), image_extent(self._geometry)
        return plot_image(image, title="virtual powder so far", extent=extent)

    def _places(self, table: PeakTable) -> list[list[float]]:
        """Return x and y in pixels of the assembled image, from its upper left corner."""
        left, _, _, top = image_extent(self._geometry)
        place = positions_px(table, self._geometry)
        places: list[list[float]] = np.column_stack([place[:, 0] - left, top - place[:, 1]]).round(2).tolist()
        return places

    @cached_property
    def _layout(self) -> npt.NDArray[np.uint32]:
        """Which pixel of the stack an image pixel is: 1 + flat index, 0 where there is no panel."""
        stack = np.arange(1, self._bad_pixels.size + 1, dtype=np.uint32).reshape(self._bad_pixels.shape)
        return np.asarray(assemble(stack, self._geometry, fill=0), dtype=np.uint32)

    def _picture(self, stack: Float32Array, marks: Mapping[str, Any]) -> bytes:
        """Return a header's length (4 bytes), the header (JSON), and the image as codes, little-endian 16-bit integers.

        A code c stands for the value level + noise · sinh(c / ``STEPS``), ``NO_VALUE`` for none.
        """
        flat = np.concatenate([np.full(1, np.nan, dtype=np.float32), stack.ravel()])
        image, shrink = highest_of(flat[self._layout], MAX_SIDE)
        codes, level, noise = encode_values(image)
        left, _, _, top = image_extent(self._geometry)
        known = self._max_inv_d > 0
        header = dict(marks) | {
            "shape": list(image.shape), "shrink": shrink, "level": level, "noise": noise, "steps": STEPS,
            "centre": [-left, top], "pixel_m": self._geometry.panels[0].pixel_size_m,
            "clen_m": float(camera_lengths_m(self._geometry, np.zeros(1, dtype=np.int64))[0]) if known else None,
            "photon_energy_ev": self._energy if known else None, "ice_d": ICE_RINGS_ANGSTROM,
        }  # fmt: skip
        text = json.dumps(header, allow_nan=False).encode()
        text += b" " * (-len(text) % 4)  # the codes begin where an array may
        return struct.pack("<I", len(text)) + text + codes.tobytes()


def highest_of(image: Float32Array, max_side: int) -> tuple[Float32Array, int]:
    """Return the highest value of each k × k pixels, NaN where all are, and the least k that keeps within ``max_side``."""
    k = -(-max(image.shape) // max_side)
    if k == 1:
        return image, 1
    rows, columns = (-(-n // k) for n in image.shape)
    padded = np.full((rows * k, columns * k), np.nan, dtype=np.float32)
    padded[: image.shape[0], : image.shape[1]] = image
    blocks = padded.reshape(rows, k, columns, k)
    return np.fmax.reduce(np.fmax.reduce(blocks, axis=1), axis=2), k


def encode_values(image: Float32Array) -> tuple[npt.NDArray[np.int16], float, float]:
    """Return codes of an image's values, the level that has the code 0, and the noise that they are scaled by.

    The level is the median. The noise is that of the pixels around it, but no less than a hundredth of the range that
    99.9 % of the pixels fill, so that a detector that counts single photons has one, too.
    """
    finite = np.isfinite(image)
    sample = image[finite][:: max(1, image.size // 100_000)]
    level, noise = 0.0, 1.0
    if sample.size:
        low, level, high = (float(q) for q in np.quantile(sample, (0.16, 0.5, 0.999)))
        noise = max(level - low, (high - level) / 100.0) or 1.0
    codes = np.full(image.shape, NO_VALUE, dtype="<i2")
    codes[finite] = np.rint(STEPS * np.arcsinh((image[finite] - level) / noise))
    return codes, level, noise


def _reached(peaks: PeakTable) -> Float64Array:
    """Return of each frame with peaks the 1/d, Å⁻¹, beyond which 5 % of them lie; frames without any known 1/d left out."""
    known = peaks[peaks["inv_d"] > 0]
    return known.groupby("frame")["inv_d"].quantile(1.0 - BEYOND).to_numpy(np.float64)
