"""The network inside the package, untuned, on simulated experiments it never saw and on real stills."""

from pathlib import Path

import pytest

from peaknet_pipeline.bench import real_stills
from peaknet_pipeline.bench.real_stills import REAL, Stills, measure_listed, measure_simulated
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.hits import HIT_SCORE, hit_peaks
from peaknet_pipeline.learn.checkpoint import SHIPPED_FOLDER, LoadedModel, load_shipped, shipped_models
from peaknet_pipeline.learn.validate import predict_panels, score_panels
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.steps import teach_shipped
from peaknet_pipeline.steps.teach_shipped import SHIPPED_NAME, decode_as_inference, validation_panels


@pytest.fixture(scope="module")
def network() -> LoadedModel:
    if SHIPPED_NAME not in shipped_models():
        pytest.skip("the package holds no trained weights")
    return load_shipped(SHIPPED_NAME)


def test_weights_are_small(network: LoadedModel) -> None:
    folder = SHIPPED_FOLDER / SHIPPED_NAME
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
    assert 0 < network.card.threshold < 1
    assert network.card.scores["threshold"] == HIT_SCORE


def test_unseen_simulated_experiments(network: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teach_shipped, "VALIDATION_SEEDS", range(910_000_000, 910_000_012))
    panels = validation_panels(teach_shipped.TEACHING)
    maps = predict_panels(network.model, panels, network.normalisation)
    scores = score_panels(maps, panels, threshold=HIT_SCORE, decode=decode_as_inference)
    assert scores.n_true > 100
    assert scores.precision > 0.75
    assert scores.band_recall["6-12"] > 0.9
    assert scores.band_recall["12-inf"] > 0.97
    assert scores.centre_rms is not None
    assert scores.centre_rms < 0.4


@pytest.mark.parametrize(("stills", "frames"), list(zip(REAL, ((0, 5), (0, 7), (0,)), strict=True)))
def test_real_stills_against_crystfels_peaks_and_lattices(
    network: LoadedModel, realdata: Path, stills: Stills, frames: tuple[int, ...]
) -> None:
    folder = realdata / stills.name
    with open_run(folder / stills.run, read_geometry(folder / stills.geometry)) as run:
        figures = measure_listed(run, folder, stills, network, frames)
    assert figures["recall"] > 0.9
    assert figures.get("precision_list_or_lattice", 1.0) > 0.85
    assert figures.get("indexed_frames", list(frames)) == list(frames)
    assert figures.get("false_indexed", 0) == 0


def test_frames_simulated_by_crystfel(network: LoadedModel, realdata: Path) -> None:
    folder = realdata / "crystfel_simulated"
    with open_run(folder / "sim1k.cxi", read_geometry(folder / "sim1k.geom")) as run:
        figures = measure_simulated(run, network, (0, 4, 9, 15, 26, 29))
    assert figures["recall"] > 0.85
    assert figures["precision"] > 0.9


def test_blank_real_stills_stay_nearly_empty(network: LoadedModel, realdata: Path) -> None:
    folder = realdata / "thaumatin"
    with open_run(folder / "stills.h5", read_geometry(folder / "stills.geom")) as run:
        peaks = real_stills.find_with_network(run, network, (8, 9))
    assert hit_peaks(peaks).groupby("frame").size().max() < 15
    assert peaks.groupby("frame").size().max() < 60
