"""``peaknet stream`` counts what a detector sends, live, and writes the peaks it finds."""

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
from click.testing import CliRunner

from peaknet_pipeline.cli import peaknet
from peaknet_pipeline.errors import ParameterError, StreamError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.infer.arrivals import Arrival, FileFacts
from peaknet_pipeline.infer.live_facts import peek
from peaknet_pipeline.infer.live_figures import LiveStatistics
from peaknet_pipeline.infer.live_sources import FrameSender
from peaknet_pipeline.infer.params import OutputParams
from peaknet_pipeline.infer.swmr_file import GrowingData
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.simulate.demo import DEMO_DISTANCE_M, demo_experiment
from peaknet_pipeline.simulate.detectors import ENCODER_PATH, ENERGY_PATH
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.steps.find_in_file import find_command
from peaknet_pipeline.steps.index_file import index_command
from peaknet_pipeline.steps.live import read_parameters
from peaknet_pipeline.steps.peak_record import read_recorded_peaks
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import FrameArray

N_FRAMES = 8


def loopback() -> str:
    """Return an address on this machine with a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, FrameArray]:
    folder = tmp_path_factory.mktemp("live")
    experiment = demo_experiment(2)
    geometry, _ = write_experiment_files(experiment, folder)
    (folder / "raw").mkdir()
    path = simulate_run(experiment, folder / "raw" / "r0001.h5", n_frames=N_FRAMES, seed=4)
    with open_run(path, geometry) as run:
        return path, geometry, run.read(0, N_FRAMES)


def stream(
    source: str, geometry: Path, out: Path, *settings: str, extra: Sequence[str] = ("--finder", "peakfinder8")
) -> dict[str, float]:
    arguments = ["stream", source, "--geometry", str(geometry), "--out", str(out), *extra]
    arguments += [part for setting in ("poll_s=0.02", *settings) for part in ("--set", setting)]
    result = CliRunner().invoke(peaknet, [*arguments, "--port", "0", "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def test_frames_sent_over_zeromq_give_the_peaks_of_the_file(
    tmp_path: Path, simulated: tuple[Path, Path, FrameArray]
) -> None:
    pytest.importorskip("zmq", reason="the extra [live] is not installed")
    path, geometry, frames = simulated
    address = loopback()

    def send() -> None:
        with FrameSender(address) as sender:
            for number, frame in enumerate(frames):
                sender.send(number, frame)

    sender = threading.Thread(target=send)
    sender.start()
    masked = ("--finder", "peakfinder8", "--mask", str(path))  # frames sent come without the run's mask
    sent = stream(address, geometry, tmp_path / "sent.parquet", "idle_s=30", extra=masked)
    sender.join()
    read = stream(str(path.parent), geometry, tmp_path / "read.parquet", "idle_s=0.7", "settle_s=0")
    assert sent["frames"] == read["frames"] == N_FRAMES
    assert sent["hits"] == read["hits"]
    assert sent["peaks"] > 0
    tables = [read_table(tmp_path / name, PEAKS) for name in ("sent.parquet", "read.parquet")]
    assert tables[0].drop(columns="inv_d").equals(tables[1].drop(columns="inv_d"))  # nor have they an energy
    assert sent["bad_pixels"] == read["bad_pixels"] > 0


def test_a_source_that_is_not_there_is_one_clear_line(
    tmp_path: Path, simulated: tuple[Path, Path, FrameArray]
) -> None:
    _, geometry, _ = simulated
    arguments = ["stream", str(tmp_path / "no.h5"), "--geometry", str(geometry), "--finder", "peakfinder8"]
    result = CliRunner().invoke(peaknet, [*arguments, "--set", "idle_s=0.1"])
    assert "cannot be followed (it is not there)" in str(result.exception)


def test_no_half_written_table_stays(tmp_path: Path, simulated: tuple[Path, Path, FrameArray]) -> None:
    _, geometry, _ = simulated
    out = tmp_path / "out" / "peaks.parquet"
    arguments = ["stream", "no.h5", "--geometry", str(geometry), "--finder", "peakfinder8", "--out", str(out)]
    CliRunner().invoke(peaknet, [*arguments, "--set", "idle_s=0.1"])
    assert not out.exists()


def test_a_followed_file_gives_what_find_gives_of_the_same_run(
    tmp_path: Path, simulated: tuple[Path, Path, FrameArray]
) -> None:
    """The same parameters and mask; the first frame's photon energy for all; hits are indexed on the way."""
    path, geometry, _ = simulated
    growing, cell = tmp_path / "grow.h5", next(geometry.parent.glob("*.cell"))
    growing.write_bytes(path.read_bytes())
    settings = ["--finder", "peaknet", "--cell", str(cell), "--segmentation", str(tmp_path / "m.h5")]
    followed = stream(
        str(growing), geometry, tmp_path / "live.parquet", f"n_frames={N_FRAMES}", extra=settings
    )
    found = find_command(
        path, geometry=geometry, finder="peaknet", model=None, settings=(), masks=(),
        out=tmp_path / "found.parquet", cxi=None, segmentation=tmp_path / "f.h5",
        output=OutputParams(segmentation=True),
    )  # fmt: skip
    tables = [read_table(tmp_path / name, PEAKS) for name in ("live.parquet", "found.parquet")]
    assert tables[0].drop(columns="inv_d").equals(tables[1].drop(columns="inv_d"))
    np.testing.assert_allclose(tables[0]["inv_d"], tables[1]["inv_d"], rtol=5e-3)
    assert followed["bad_pixels"] == found["bad_pixels"] > 0
    assert followed["hits"] == found["frames_with_15_peaks"] > 0
    assert 0 < followed["indexed"] <= followed["hits"]
    with h5py.File(tmp_path / "m.h5") as one, h5py.File(tmp_path / "f.h5") as other:
        np.testing.assert_array_equal(one["peak_mask"][...], other["peak_mask"][...])
    indexed = index_command(
        tmp_path / "live.parquet", geometry=geometry, cell=cell, engine="lattice", settings=(),
        out=tmp_path / "lattices.parquet", stream=None,
    )  # fmt: skip
    assert indexed["indexed"] >= followed["indexed"]


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_camera_length_that_the_geometry_leaves_to_the_file_is_the_files(
    as_folder: bool, tmp_path: Path, simulated: tuple[Path, Path, FrameArray]
) -> None:
    """The first shot has neither energy nor camera length: those of the next ones count."""
    path, geometry, _ = simulated
    folder = tmp_path / "raw"
    folder.mkdir()
    source = folder / path.name
    source.write_bytes(path.read_bytes())
    with h5py.File(source, "r+") as file:
        file[ENERGY_PATH][0], file[ENCODER_PATH][0] = 0.0, np.nan
    text = re.sub(r"(?m)^clen = .*$", f"clen = {ENCODER_PATH} mm", geometry.read_text(encoding="utf-8"))
    named = tmp_path / "paths.geom"
    named.write_text(text, encoding="utf-8")
    settings = ["settle_s=0", "idle_s=2"] if as_folder else [f"n_frames={N_FRAMES}"]
    extra = ["--finder", "peakfinder8", "--cxi", str(tmp_path / "live.cxi")]
    out = tmp_path / "live.parquet"
    stream(str(folder if as_folder else source), named, out, *settings, extra=extra)
    peaks = read_table(out, PEAKS)
    assert np.isfinite(peaks["inv_d"]).all()
    recorded = read_recorded_peaks(out, named)
    assert recorded.geometry.panels[0].clen_m == pytest.approx(DEMO_DISTANCE_M)
    written = read_geometry(tmp_path / "live.geom")
    assert written.clen_path is None
    assert written.panels[0].clen_m == pytest.approx(DEMO_DISTANCE_M)


def test_ctrl_c_ends_the_source_and_leaves_complete_files(
    tmp_path: Path, simulated: tuple[Path, Path, FrameArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT after the first batch, long before the source would end by itself."""
    path, geometry, _ = simulated
    growing, add = tmp_path / "grow.h5", LiveStatistics.add
    growing.write_bytes(path.read_bytes())

    def add_and_interrupt(self: LiveStatistics, *arguments: Any) -> None:
        add(self, *arguments)
        if self.figures().frames == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(LiveStatistics, "add", add_and_interrupt)
    out, cxi = tmp_path / "live.parquet", tmp_path / "live.cxi"
    extra = ["--finder", "peakfinder8", "--cxi", str(cxi)]
    figures = stream(str(growing), geometry, out, "batch_frames=2", "idle_s=300", extra=extra)
    assert 2 <= figures["frames"] <= N_FRAMES
    with open_run(cxi, cxi.with_suffix(".geom")) as run:
        assert run.n_frames == figures["frames"]
    assert len(read_table(out, PEAKS)) == figures["peaks"]
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_settings_go_to_the_stream_or_to_the_finder() -> None:
    params, detection = read_parameters("peakfinder8", ["idle_s=5", "threshold=70"])
    assert (params.idle_s, detection.to_dict()["threshold"]) == (5.0, 70.0)
    assert read_parameters("peaknet", ["min_snr=2"])[1].to_dict()["min_snr"] == 2.0
    with pytest.raises(ParameterError, match="unknown parameter 'local_bg_radius'"):
        read_parameters("peaknet", ["local_bg_radius=3"])


def test_frames_without_the_mask_that_the_geometry_names_are_told_of(
    simulated: tuple[Path, Path, FrameArray],
) -> None:
    geometry = read_geometry(simulated[1])
    frame = Arrival(np.arange(1), np.zeros((1, *geometry.stack_shape), np.int16), np.zeros(1))
    told: list[str] = []
    arrivals, facts = peek(iter([frame, frame]), geometry, told.append)
    assert len(list(arrivals)) == 2
    assert facts.bad_pixels is None
    assert "give it as --mask" in told[0]
    told.clear()
    masks = [np.zeros(geometry.stack_shape, bool), np.ones(geometry.stack_shape, bool)]
    files = [replace(frame, facts=FileFacts(mask)) for mask in masks]
    arrivals, facts = peek(iter(files), geometry, told.append)
    assert len(list(arrivals)) == 2
    assert facts.bad_pixels is masks[0]
    assert len(told) == 1
    assert "another mask" in told[0]


def test_a_stream_that_broke_off_goes_on_to_what_an_undisturbed_one_writes(
    tmp_path: Path, simulated: tuple[Path, Path, FrameArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends in an error after some frames; the second reads only the others."""
    path, geometry, _ = simulated
    growing = tmp_path / "grow.h5"
    growing.write_bytes(path.read_bytes())
    extra = ("--finder", "peakfinder8", "--hits-only", "--min-peaks", "5")
    settings = ("batch_frames=2", f"n_frames={N_FRAMES}")
    add = LiveStatistics.add

    def add_or_break(self: LiveStatistics, *arguments: Any) -> None:
        if self.figures().frames == 4:
            raise RuntimeError("broken off")
        add(self, *arguments)

    def run(out: str) -> dict[str, float]:
        files = ("--cxi", str(tmp_path / f"{out}.cxi"))
        return stream(str(growing), geometry, tmp_path / f"{out}.parquet", *settings, extra=(*extra, *files))

    whole = run("whole")
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="broken off"):
        patched.setattr(LiveStatistics, "add", add_or_break)
        run("parts")
    assert not (tmp_path / "parts.parquet").exists()
    figures = run("parts")
    assert figures["frames_taken_up"] == 6  # the batch that was written when it broke off counts
    assert figures["frames"] + figures["frames_taken_up"] == whole["frames"] == N_FRAMES
    tables = [read_table(tmp_path / f"{name}.parquet", PEAKS) for name in ("whole", "parts")]
    assert len(tables[0]) > 0
    assert tables[0].equals(tables[1])
    with h5py.File(tmp_path / "whole.cxi") as one, h5py.File(tmp_path / "parts.cxi") as other:
        for name in ("entry_1/data_1/data", "entry_1/result_1/frame", "entry_1/result_1/peakXPosRaw"):
            np.testing.assert_array_equal(one[name][...], other[name][...])
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_stream_without_one_usable_frame_says_why(
    tmp_path: Path, simulated: tuple[Path, Path, FrameArray]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "r1.h5").write_bytes(b"not HDF5" * 99)
    with pytest.raises(StreamError, match=r"no frame could be used.*r1\.h5.*found 1 left out"):
        stream(str(tmp_path / "in"), simulated[1], tmp_path / "o.parquet", "idle_s=0.2", "settle_s=0")
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_what_came_before_a_source_broke_is_written_and_the_error_told(
    tmp_path: Path, simulated: tuple[Path, Path, FrameArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, geometry, _ = simulated
    growing, count = tmp_path / "grow.h5", GrowingData.count
    growing.write_bytes(path.read_bytes())

    def count_or_lose(self: GrowingData, done: int) -> int:
        if done == 4:
            os.truncate(growing, 5000)
        return count(self, done)

    monkeypatch.setattr(GrowingData, "count", count_or_lose)
    with pytest.raises(StreamError, match="cannot be followed any more"):
        stream(str(growing), geometry, tmp_path / "o.parquet", "batch_frames=2", "idle_s=9")
    assert set(read_table(tmp_path / "o.parquet", PEAKS)["frame"]) <= set(range(4))
    assert len(read_table(tmp_path / "o.parquet", PEAKS)) > 0


PLAIN_GEOMETRY = """clen = 0.1
photon_energy = 9500
adu_per_photon = 1
res = 10000
data = /entry/data/data
dim0 = %
dim1 = ss
dim2 = fs
p0/min_fs = 0
p0/max_fs = 95
p0/min_ss = 0
p0/max_ss = 63
p0/corner_x = -48
p0/corner_y = -32
p0/fs = x
p0/ss = y
"""


@pytest.mark.parametrize("source", ["file", "folder"])
def test_limits_that_only_the_file_tells_hold_in_a_live_stream_too(tmp_path: Path, source: str) -> None:
    """A geometry without flags, an NXmx file with underload_value: a patch below it takes no spot's ring with it."""
    frames = np.random.default_rng(3).poisson(10, (3, 64, 96)).astype(np.int16)
    for ss, fs in ((12, 12), (12, 60), (50, 12), (50, 60)):
        frames[:, ss - 1 : ss + 2, fs - 1 : fs + 2] += 400
    frames[:, 26:34, 20:70] = -200
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "r0001.h5", "w", libver="latest") as file:
        file["entry/definition"] = "NXmx"
        file.create_dataset("entry/data/data", data=frames, maxshape=(None, 64, 96), chunks=(1, 64, 96))
        file["entry/instrument/detector/underload_value"] = -100
        file["entry/instrument/detector/detector_distance"] = 0.1
    geometry = tmp_path / "g.geom"
    geometry.write_text(PLAIN_GEOMETRY)
    settings = ("threshold=100", "min_snr=5")
    find_command(
        tmp_path / "in" / "r0001.h5", geometry=geometry, finder="peakfinder8", model=None, settings=settings,
        masks=(), out=tmp_path / "found.parquet", cxi=None,
    )  # fmt: skip
    place = tmp_path / "in" / "r0001.h5" if source == "file" else tmp_path / "in"
    ending = ("n_frames=3",) if source == "file" else ("idle_s=1", "settle_s=0")
    stream(str(place), geometry, tmp_path / "live.parquet", *settings, *ending)
    found, live = (read_table(tmp_path / name, PEAKS) for name in ("found.parquet", "live.parquet"))
    columns = ["frame", "panel", "fs", "ss", "intensity", "background"]
    assert len(found)
    assert live[columns].equals(found[columns])
    geometry.write_text("flag_lessthan = -500\n" + PLAIN_GEOMETRY)
    stream(str(place), geometry, tmp_path / "unlimited.parquet", *settings, *ending)
    assert not read_table(tmp_path / "unlimited.parquet", PEAKS)[columns].equals(found[columns])
