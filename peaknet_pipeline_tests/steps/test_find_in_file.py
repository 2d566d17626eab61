"""``peaknet find`` writes what is asked for: everything or hits only, images linked or copied, segmentation masks."""

import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.infer.params import OutputParams
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline.steps.find_in_file import find_command
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.tables import read_table, read_table_metadata

N_FRAMES = 8


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("find")
    experiment = demo_experiment(2)
    geometry, _ = write_experiment_files(experiment, folder)
    return simulate_run(experiment, folder / "r0001.h5", n_frames=N_FRAMES, seed=4), geometry


def find(simulated: tuple[Path, Path], out: Path, **options: object) -> dict[str, object]:
    path, geometry = simulated
    settings: dict[str, object] = {
        "finder": "peaknet",
        "model": None,
        "settings": (),
        "masks": (),
        "cxi": None,
    }
    return find_command(path, geometry=geometry, out=out, **(settings | options))  # type: ignore[arg-type]


def test_hits_their_images_and_masks_are_a_part_of_everything(
    tmp_path: Path, simulated: tuple[Path, Path]
) -> None:
    everything = find(simulated, tmp_path / "all.parquet", segmentation=tmp_path / "all.h5")
    reduced = find(
        simulated,
        tmp_path / "hits.parquet",
        settings=("batch_frames=3",),
        cxi=tmp_path / "hits.cxi",
        segmentation=tmp_path / "hits.h5",
        output=OutputParams(hits_only=True, min_peaks=15, images="copy", segmentation=True),
    )
    peaks, hits = (read_table(tmp_path / f"{name}.parquet", PEAKS) for name in ("all", "hits"))
    counts = np.bincount(peaks["frame"], minlength=N_FRAMES)
    numbers = np.flatnonzero(counts >= 15)
    assert 0 < len(numbers) < N_FRAMES
    assert hits.equals(peaks[peaks["frame"].isin(numbers)].reset_index(drop=True))
    assert reduced["hits"] == everything["frames_with_15_peaks"] == len(numbers)
    assert reduced["kept_fraction"] == pytest.approx(len(numbers) / N_FRAMES, abs=1e-4)
    assert 0 < float(str(reduced["bytes_kept"])) < 1
    assert read_table_metadata(tmp_path / "hits.parquet")["hits_only"] == "true"
    with (
        open_run(simulated[0], simulated[1]) as raw,
        open_run(tmp_path / "hits.cxi", tmp_path / "hits.geom") as copy,
    ):
        for row, number in enumerate(numbers.tolist()):
            np.testing.assert_array_equal(copy.read(row, row + 1)[0], raw.read(number, number + 1)[0])
    with h5py.File(tmp_path / "all.h5") as every, h5py.File(tmp_path / "hits.h5") as some:
        assert every["frame"][...].tolist() == list(range(N_FRAMES))
        assert some["frame"][...].tolist() == numbers.tolist()
        np.testing.assert_array_equal(some["peak_mask"][...], every["peak_mask"][...][numbers])
        assert some["peak_mask"][...].sum() >= hits["n_pixels"].sum() > 0
        assert some.attrs["recipe"]
        assert some.attrs["model"]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_was_found_before_an_interruption_is_taken_up(
    tmp_path: Path, simulated: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, masks = tmp_path / "p.parquet", tmp_path / "m.h5"

    def full_disk(*arguments: object, **options: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr("peaknet_pipeline.steps.find_in_file.write_found", full_disk)
        find(simulated, out, segmentation=masks)
    assert not out.exists()
    taken_up = find(simulated, out, segmentation=masks)
    written, drawn = out.read_bytes(), h5py.File(masks)["peak_mask"][...]
    afresh = find(simulated, out, segmentation=masks)
    assert (taken_up["frames_taken_up"], afresh["frames_taken_up"]) == (N_FRAMES, 0)
    assert written == out.read_bytes()
    np.testing.assert_array_equal(drawn, h5py.File(masks)["peak_mask"][...])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.h5", "p.parquet"]


def test_masks_are_the_networks_alone(tmp_path: Path, simulated: tuple[Path, Path]) -> None:
    with pytest.raises(ParameterError, match="--segmentation go with --finder peaknet"):
        find(simulated, tmp_path / "p.parquet", finder="peakfinder8", segmentation=tmp_path / "m.h5")


def test_classical_peaks_of_hits_only(tmp_path: Path, simulated: tuple[Path, Path]) -> None:
    output = OutputParams(hits_only=True, min_peaks=5)
    figures = find(
        simulated, tmp_path / "p.parquet", finder="peakfinder8", settings=("threshold=30",), output=output
    )
    counts = read_table(tmp_path / "p.parquet", PEAKS)["frame"].value_counts()
    assert counts.min() >= 5
    assert figures["hits"] == figures["frames_with_5_peaks"] == len(counts)


def test_the_stream_is_chosen_by_its_parameters() -> None:
    frame = np.zeros((1, 8, 176, 256), np.uint16)
    local = InferenceParams.from_mapping({"device": "cpu", "readers": 3}).fit(frame, 1000)
    assert local.batch_frames > 1
    assert local.local().readers == 3
    assert local.local().batch_frames == local.batch_frames
    assert local.fit(frame, 5).batch_frames == local.batch_frames
    assert InferenceParams.from_mapping({"batch_frames": 7}).fit(frame, 1000).batch_frames == 7
    ray = InferenceParams.from_mapping(
        {"stream": "ray", "readers": 2, "consumers": 4, "writers": 2, "gpus_per_consumer": 1}
    ).fit(frame, 1000)
    chosen = ray.ray()
    assert (chosen.producers, chosen.consumers, chosen.writers, chosen.gpus_per_consumer) == (2, 4, 2, 1)
    assert chosen.batch_frames == ray.batch_frames > 1
    assert chosen.in_flight >= 8
    assert (chosen.threads_per_consumer, ray.fit(frame, 1000).local().finders) == (2, 2)
    on_cpus = InferenceParams.from_mapping({"stream": "ray", "device": "cpu"})
    assert on_cpus.ray().threads_per_consumer == 1
    with pytest.raises(ParameterError, match="stream"):
        InferenceParams.from_mapping({"stream": "kafka"})


def classical(run: tuple[Path, Path], out: Path, **options: object) -> dict[str, object]:
    return find(run, out, finder="peakfinder8", settings=("threshold=20", "min_snr=4"), **options)


def test_a_mask_of_the_other_polarity_never_ends_in_silence(
    tmp_path: Path, simulated: tuple[Path, Path]
) -> None:
    with open_run(simulated[0], simulated[1]) as run:
        bad = run.bad_pixels
    plain = classical(simulated, tmp_path / "plain.parquet")
    np.save(tmp_path / "good.npy", (~bad).astype(np.uint8))
    wrong = classical(simulated, tmp_path / "wrong.parquet", masks=(tmp_path / "good.npy",))
    assert wrong["peaks"] == 0
    doubts = "\n".join(wrong["doubts"])  # type: ignore[arg-type]
    assert "good.npy takes" in doubts
    assert "is 1 good here? Then invert it: --invert-mask" in doubts
    assert f"None of {N_FRAMES} frames has a peak. 100% of the pixels are masked. Does a mask" in doubts
    right = classical(
        simulated, tmp_path / "right.parquet", masks=(tmp_path / "good.npy",), invert_masks=True
    )
    assert right["peaks"] == plain["peaks"]
    assert "was inverted" in "\n".join(right["doubts"])  # type: ignore[arg-type]
    assert read_table_metadata(tmp_path / "right.parquet")["invert_masks"] == "true"


def test_a_threshold_above_every_value_is_told(tmp_path: Path, simulated: tuple[Path, Path]) -> None:
    found = find(simulated, tmp_path / "none.parquet", finder="peakfinder8", settings=("threshold=1e8",))
    (told,) = found["doubts"]  # type: ignore[misc]
    assert told.startswith(f"None of {N_FRAMES} frames has a peak.")
    assert "thresholds" in told


def test_a_classical_finder_starts_without_what_only_a_network_needs():
    code = (
        "import sys, peaknet_pipeline.steps.find_in_file; "
        "print([m for m in ('torch', 'scipy.optimize', 'scipy.ndimage', 'matplotlib') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["[]"]
