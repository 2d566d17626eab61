"""Raw gain-switching frames and NXmx masters through the experiment's settings."""

import numpy as np
import pandas as pd
import pytest
import torch

from peaknet_pipeline.cli import main
from peaknet_pipeline.errors import ParameterError, RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.params import DecodeParams, EngineParams
from peaknet_pipeline.learn.checkpoint import LoadedModel, ModelCard
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.runs.calibrate import CalibrationParams
from peaknet_pipeline.runs.calibrated import CalibrationFile, write_calibration
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.stages.peaknet_peaks import _source
from peaknet_pipeline.stages.raw_run import raw_run
from peaknet_pipeline.steps.find_with_network import InferenceJob
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.steps.stream_run import EngineRecipe, RunSource, calibrated_on_device
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.run_files import open_raw, read_context
from peaknet_pipeline_tests.infer.fake_network import threshold_network
from peaknet_pipeline_tests.runs.files import module_geometry, write_run
from peaknet_pipeline_tests.runs.test_calibrate import SHAPE, constants, encode
from peaknet_pipeline_tests.runs.test_nexus import write_master

MODEL = LoadedModel(torch.nn.Identity(), NormaliseParameters(), ModelCard("none"))


@pytest.fixture
def raw(tmp_path):
    """A raw JUNGFRAU run of known energies, with its constants named in experiment.yaml."""
    store = Store(tmp_path)
    folder = store.raw_root / "jf"
    folder.mkdir(parents=True)
    kev = np.random.default_rng(2).choice([0.0, 9.5, 600.0], (6, *SHAPE), p=[0.6, 0.37, 0.03])
    calibration = constants("jungfrau")
    write_run(folder / "r0001.h5", encode(kev, calibration, "jungfrau"))
    write_calibration(calibration, folder / "constants.h5")
    (folder / "jf.geom").write_text(module_geometry().text)
    (folder / "jf.cell").write_text("a cell\n")
    (folder / "experiment.yaml").write_text(
        "calibration_file: constants.h5\ncalibration: {detector: jungfrau, common_mode: none}\n"
    )
    return store, folder, kev


def test_stages_and_the_network_read_the_same_calibrated_frames(raw):
    store, folder, kev = raw
    context = read_context(store, "jf-r0001")
    assert folder / "constants.h5" in context.settings_files
    with open_raw(context) as run:
        np.testing.assert_allclose(run.read(0, 6), kev, atol=0.5)
        alone = run.read(2, 4)
    with _source(context, run).open() as run:
        np.testing.assert_array_equal(run.read(2, 4), alone)
    assert raw_run(store, "jf-r0001").figures["frames"] == 6


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("calibration_file: ../../constants.h5\n", ParameterError, "leads out of its folder"),
        ("calibration_file: gone.h5\n", RunError, "no such file"),
        ("calibration: {detector: jungfrau}\n", ParameterError, "calibration without constants"),
    ],
)
def test_constants_that_cannot_be_used_are_refused(raw, text, error, words):
    store, folder, _ = raw
    (folder / "experiment.yaml").write_text(text)
    with pytest.raises(error, match=words):
        read_context(store, "jf-r0001")


@pytest.mark.parametrize("modules", [False, True], ids=["one panel", "modules"])
def test_a_master_files_geometry_written_as_geom_reads_the_same_frames_and_mask(tmp_path, modules, capsys):
    frames = write_master(tmp_path, modules=modules)
    master = next(tmp_path.glob("*_master.h5"))
    main(["geometry", str(master), "--out", str(tmp_path / "eiger.geom")])
    assert "panels" in capsys.readouterr().out
    with open_run(master) as own, open_run(master, read_geometry(tmp_path / "eiger.geom")) as written:
        assert written.n_frames == own.n_frames == len(frames)
        np.testing.assert_array_equal(written.read(0, written.n_frames), own.read(0, own.n_frames))
        np.testing.assert_array_equal(written.bad_pixels, own.bad_pixels)
        np.testing.assert_allclose(written.photon_energy_ev, own.photon_energy_ev, rtol=1e-6)
        for one, other in zip(own.geometry.panels, written.geometry.panels, strict=True):
            assert one.corner_x == pytest.approx(other.corner_x, abs=1e-3)
            assert one.clen_m == pytest.approx(other.clen_m, abs=1e-6)


def test_a_run_without_a_geometry_has_none_to_write(tmp_path, capsys):
    write_run(tmp_path / "plain.h5", np.zeros((2, 8, 8), np.uint16))
    with pytest.raises(SystemExit):
        main(["geometry", str(tmp_path / "plain.h5"), "--out", str(tmp_path / "x.geom")])
    assert "carries no geometry" in capsys.readouterr().err


def test_a_network_on_a_gpu_calibrates_there_and_sees_the_same_frames(raw, monkeypatch):
    """The way of a GPU, taken on the CPU: peaks of raw frames are those of frames that a reader calibrates."""
    store, folder, _ = raw
    context = read_context(store, "jf-r0001")
    monkeypatch.setattr(Network, "from_checkpoint", lambda *_, **__: threshold_network())
    peaks = {}
    for on_gpu in (False, True):
        monkeypatch.setattr(InferenceParams, "finds_on_gpu", on_gpu)
        with open_raw(context) as run:
            job = InferenceJob(
                _source(context, run), run, MODEL, InferenceParams(min_neighbour=0), run.bad_pixels,
                folder=folder / f"parts{on_gpu}", digest="x", segmentation=None, metadata={},
            )  # fmt: skip
            with job.streamed(None) as (found, _):
                peaks[on_gpu] = found
    assert len(peaks[False]) > 10
    pd.testing.assert_frame_equal(peaks[True], peaks[False], rtol=1e-4)


@pytest.mark.parametrize(
    ("photons", "on_gpu", "moves"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_calibration_moves_to_a_gpu_unless_photons_need_each_shots_energy(photons, on_gpu, moves, tmp_path):
    file = CalibrationFile(tmp_path / "constants.h5", CalibrationParams(photons=photons))
    source = RunSource(tmp_path / "run.h5", None, calibration=file)
    recipe = EngineRecipe(MODEL, np.zeros(SHAPE, bool), None, None, DecodeParams(), EngineParams())
    placed = calibrated_on_device(source, recipe, on_gpu=on_gpu)
    assert [one.calibration for one in placed] == ([None, file] if moves else [file, None])
