"""``peaknet stream`` counts what a detector sends, live, and writes the peaks it finds."""

import json
import socket
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from peaknet_pipeline.cli import peaknet
from peaknet_pipeline.infer.live_sources import FrameSender
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.types import PEAKS, FrameArray

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


def stream(source: str, geometry: Path, out: Path, *settings: str) -> dict[str, float]:
    arguments = ["stream", source, "--geometry", str(geometry), "--finder", "peakfinder8", "--out", str(out)]
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
    sent = stream(address, geometry, tmp_path / "sent.parquet", "idle_s=30")
    sender.join()
    read = stream(str(path.parent), geometry, tmp_path / "read.parquet", "idle_s=0.7", "settle_s=0")
    assert sent["frames"] == read["frames"] == N_FRAMES
    assert sent["hits"] == read["hits"]
    assert sent["peaks"] > 0
    tables = [read_table(tmp_path / name, PEAKS) for name in ("sent.parquet", "read.parquet")]
    assert tables[0].equals(tables[1])


def test_a_source_that_is_not_there_is_one_clear_line(
    tmp_path: Path, simulated: tuple[Path, Path, FrameArray]
) -> None:
    _, geometry, _ = simulated
    result = CliRunner().invoke(
        peaknet, ["stream", str(tmp_path / "no.h5"), "--geometry", str(geometry), "--finder", "peakfinder8"]
    )
    assert "cannot be followed" in str(result.exception)


def test_no_half_written_table_stays(tmp_path: Path, simulated: tuple[Path, Path, FrameArray]) -> None:
    _, geometry, _ = simulated
    out = tmp_path / "out" / "peaks.parquet"
    CliRunner().invoke(
        peaknet,
        ["stream", "no.h5", "--geometry", str(geometry), "--finder", "peakfinder8", "--out", str(out)],
    )
    assert list(out.parent.iterdir()) == []
