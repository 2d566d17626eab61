"""The page of a live stream shows what was found: pixels, places, counts and cells are those of the tables."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peaknet_pipeline.geometry.assemble import assemble, image_extent
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import peak_positions_m
from peaknet_pipeline.geometry.resolve import resolve_geometry
from peaknet_pipeline.indexing.cell import reciprocal_matrix
from peaknet_pipeline.indexing.lattice import AXIS_COLUMNS
from peaknet_pipeline.infer.arrivals import Arrival
from peaknet_pipeline.infer.figure_server import serve_figures
from peaknet_pipeline.infer.live_figures import LiveStatistics
from peaknet_pipeline.schemas import INDEX, PEAKS, IndexTable, PeakTable
from peaknet_pipeline.steps import live_view
from peaknet_pipeline.steps.live_history import N_INTERVALS, History
from peaknet_pipeline.steps.live_view import NO_VALUE, LiveView, encode_values, highest_of
from peaknet_pipeline.tables import make_table
from peaknet_pipeline.types import Float32Array, Geometry, UnitCell
from peaknet_pipeline_tests.browser import browser_page

CELL = UnitCell(78.0, 78.0, 38.0, 90.0, 90.0, 90.0, "tetragonal", "P", "c")
GEOMETRY = """
photon_energy = 9000
clen = 0.1
res = 5000
adu_per_photon = 1
data = /data
dim0 = %
dim1 = ss
dim2 = fs
left/min_fs = 0
left/max_fs = 49
left/min_ss = 0
left/max_ss = 89
left/corner_x = -60
left/corner_y = -45
left/fs = +x
left/ss = +y
right/min_fs = 50
right/max_fs = 99
right/min_ss = 0
right/max_ss = 89
right/corner_x = 5
right/corner_y = 50
right/fs = +x
right/ss = -y
"""


@pytest.fixture
def geometry(tmp_path: Path) -> Geometry:
    path = tmp_path / "two.geom"
    path.write_text(GEOMETRY)
    return resolve_geometry(read_geometry(path))


def make_peaks(frames: np.ndarray[Any, Any]) -> PeakTable:
    n = len(frames)
    rng = np.random.default_rng(1)
    values = dict.fromkeys(PEAKS.column_names(), np.ones(n)) | {"frame": frames, "panel": np.arange(n) % 2}
    values |= {"ss": rng.uniform(0, 89, n), "fs": rng.uniform(0, 49, n), "inv_d": np.full(n, 0.09375)}
    return make_table(PEAKS, values | {"max_intensity": np.full(n, 1000.0)})


def make_lattice(frame: int) -> IndexTable:
    axes = dict(zip(AXIS_COLUMNS, reciprocal_matrix(CELL).T.ravel(), strict=True))
    values: dict[str, Any] = dict.fromkeys(INDEX.column_names(), 0.0) | axes | {"frame": frame}
    return make_table(INDEX, {name: np.array([value]) for name, value in values.items()})


def watched(geometry: Geometry) -> tuple[LiveView, Float32Array, PeakTable]:
    """A view that has seen three frames; the one of number 12 is a hit, and indexes."""
    statistics = LiveStatistics(min_peaks=5, clock=lambda: 1010.5)
    now = iter([1000.0, *[1010.5] * 100])
    view = LiveView(geometry, statistics, {"source": "tcp://x", "finder": "droplet"}, clock=lambda: next(now))
    view.use(geometry, np.zeros(geometry.stack_shape, dtype=np.bool_), CELL)
    frames = np.random.default_rng(2).normal(100, 5, (3, *geometry.stack_shape)).astype(np.float32)
    frames[1, 0, 20, 30] = 5000.0
    peaks = make_peaks(np.repeat([12, 13], [40, 2]))
    arrival = Arrival(np.array([11, 12, 13]), frames, np.full(3, 1010.0), waiting=7)
    statistics.add(arrival, peaks, 1)
    view.add(arrival, peaks, make_lattice(12))
    return view, frames[1], peaks[peaks["frame"] == 12]


def read_picture(content: bytes) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Return header and values, as the page reads them."""
    (n,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + n])
    codes = np.frombuffer(content, "<i2", offset=4 + n).reshape(header["shape"])
    values = header["level"] + header["noise"] * np.sinh(codes / header["steps"])
    return header, np.where(codes == NO_VALUE, np.nan, values)


def test_a_hits_picture_is_its_assembled_frame_and_its_peaks_lie_on_their_pixels(geometry: Geometry) -> None:
    view, frame, peaks = watched(geometry)
    header, values = read_picture(view.hit())
    expected = assemble(frame, geometry)
    assert header["frame"] == 12
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    np.testing.assert_allclose(values, expected, rtol=0.02, atol=0.05)
    left, _, _, top = image_extent(geometry)
    lab = peak_positions_m(geometry, *(peaks[name].to_numpy() for name in ("panel", "fs", "ss")))
    lab = lab[:, :2] / geometry.panels[0].pixel_size_m
    np.testing.assert_allclose(header["peaks"], np.c_[lab[:, 0] - left, top - lab[:, 1]], atol=0.006)
    bright = np.unravel_index(np.nanargmax(values), values.shape)
    place = peak_positions_m(geometry, np.array([0]), np.array([30.0]), np.array([20.0]))[0]
    x, y = place[:2] / geometry.panels[0].pixel_size_m
    assert (int(top - y), int(x - left)) == bright
    assert len(header["lattices"]) == 1


def test_bad_pixels_are_not_shown(geometry: Geometry) -> None:
    view, _, _ = watched(geometry)
    view.use(geometry, np.ones(geometry.stack_shape, dtype=np.bool_), CELL)
    assert np.isnan(read_picture(view.powder())[1]).all()


def test_a_large_detector_is_shown_by_its_highest_pixels() -> None:
    image = np.full((5, 7), np.nan, dtype=np.float32)
    image[4, 6], image[0, 1], image[1, 0] = 3.0, 2.0, 5.0
    small, k = highest_of(image, 4)
    assert (small.shape, k) == ((3, 4), 2)
    assert small[2, 3] == 3.0
    assert small[0, 0] == 5.0
    assert np.isnan(small).sum() == 10
    same, one = highest_of(image, 7)
    assert one == 1
    np.testing.assert_array_equal(same, image)


@pytest.mark.parametrize("value", [0.0, 7.0, -3e9, np.nan])
def test_an_image_of_one_value_has_a_code(value: float) -> None:
    codes, level, noise = encode_values(np.full((4, 4), value, dtype=np.float32))
    assert np.isfinite([level, noise]).all()
    assert (codes == (NO_VALUE if np.isnan(value) else 0)).all()


def test_the_state_counts_what_was_added(geometry: Geometry) -> None:
    view, _, _ = watched(geometry)
    state = json.loads(view.state())
    history = state["history"]
    assert (sum(history["frames"]), sum(history["hits"]), sum(history["indexed"])) == (3, 1, 1)
    assert history["frames"][10] == 3
    assert history["latency_mean_s"][10] == history["latency_max_s"][10] == 0.5
    assert (history["waiting"][10], history["latency_mean_s"][3], history["inv_d"][10]) == (7, None, 0.09375)
    wavelength, farthest = 12398.42 / 9000, np.hypot(60, 45) / 5000  # the detector's farthest corner, m
    reach = 2 * np.sin(np.arctan(farthest / 0.1) / 2) / wavelength
    assert state["peakogram"]["max_inv_d"] == pytest.approx(reach, rel=0.02)
    counts = np.array(state["peakogram"]["counts"])
    assert counts.sum() == state["peaks_per_hit"] == 40
    column, row = np.unravel_index(counts.argmax(), counts.shape)
    assert column == int(0.09375 / state["peakogram"]["max_inv_d"] * counts.shape[0])
    assert row == 3 / 6 * counts.shape[1]
    medians = {cell["name"]: cell["median"] for cell in state["cells"]}
    assert medians == pytest.approx({"a": 78, "b": 78, "c": 38, "alpha": 90, "beta": 90, "gamma": 90})
    assert all(sum(cell["counts"]) == 1 for cell in state["cells"])


def test_a_history_loses_no_count_however_long_it_becomes() -> None:
    history, rng = History(0.0), np.random.default_rng(3)
    times = np.sort(rng.uniform(0, 5e5, 300))
    for now in times:
        history.add(
            now, n_frames=3, n_hits=2, n_indexed=1, latencies_s=np.array([1.0, np.nan]), waiting=4, inv_d=np.zeros(0)
        )  # fmt: skip
    columns = history.columns(float(times[-1]))
    assert len(columns["frames"]) <= N_INTERVALS
    assert (sum(columns["frames"]), sum(columns["hits"]), sum(columns["indexed"])) == (900, 600, 300)
    expected = np.bincount((times / columns["interval_s"]).astype(int), minlength=len(columns["frames"]))
    np.testing.assert_array_equal(columns["hits"], 2 * expected)
    assert max(columns["waiting"]) == 4


def test_before_the_first_frame_there_is_a_page_without_pictures(geometry: Geometry) -> None:
    view = LiveView(geometry, LiveStatistics(min_peaks=5), {"source": "x", "finder": "droplet"})
    assert view.hit() == view.powder() == b""
    assert json.loads(view.state())["hit"] is None
    assert b"live.js" in view.served()["/"].make()


def test_a_hit_is_copied_only_while_somebody_looks(geometry: Geometry) -> None:
    now = [1000.0]
    view = LiveView(geometry, LiveStatistics(min_peaks=1), {}, clock=lambda: now[0])
    frames = np.ones((1, *geometry.stack_shape), dtype=np.float32)

    def shown_after(number: int, seconds: float) -> int | None:
        now[0] += seconds
        arrival = Arrival(np.array([number]), frames, np.full(1, now[0]))
        view.add(arrival, make_peaks(np.array([number])), None)
        hit: int | None = json.loads(view.state())["hit"]
        return hit

    assert shown_after(1, 0.0) == 1
    assert shown_after(2, 5.0) == 1
    view.hit()
    assert shown_after(3, 5.0) == 3
    assert shown_after(4, 0.1) == 3
    assert shown_after(5, live_view.WATCHED_S) == 3


def test_a_browser_shows_figures_and_the_last_hit(geometry: Geometry) -> None:
    view, _, _ = watched(geometry)
    statistics = LiveStatistics(min_peaks=5)
    with serve_figures(statistics.figures, shown=view.served()) as address, browser_page() as page:
        page.open(f"{address}/")
        page.wait_for(
            "document.getElementById('pointer').textContent.startsWith('frame 12: 40 peaks, 1 lattice')"
        )
        tiles = page.value("[...document.querySelectorAll('.figure b')].map(b => b.textContent)")
        assert tiles[:3] == ["3", "33.3 %", "100.0 %"]
        painted = "(() => { const c = document.getElementById('picture'), d = c.getContext('2d')"
        painted += ".getImageData(0, 0, c.width, c.height).data; return d.filter((v, i) => i % 4 === 3 && v).length })()"
        assert page.value(painted) > 10_000
        page.press("2")
        page.wait_for("document.getElementById('pointer').textContent.startsWith('highest value')")
        page.press("?")
        assert page.value("document.getElementById('help').open")
        assert not page.complaints
