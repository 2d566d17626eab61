"""The network inside the package, untuned, on simulated experiments it never saw and on real stills."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from peaknet_pipeline.learn.checkpoint import LoadedModel, load_shipped, shipped_models
from peaknet_pipeline.learn.edge_cpu import EdgeOnCpu
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.learn.validate import decode_panel, match_centres, predict_panels, score_panels
from peaknet_pipeline.stages import shipped
from peaknet_pipeline.stages.shipped import SHIPPED_NAME, validation_panels


@pytest.fixture(scope="module")
def network() -> LoadedModel:
    if SHIPPED_NAME not in shipped_models():
        pytest.skip("the package holds no trained weights")
    return load_shipped(SHIPPED_NAME)


def test_weights_are_small(network: LoadedModel) -> None:
    folder = Path(shipped.SHIPPED_FOLDER) / SHIPPED_NAME
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
    assert 0 < network.card.threshold < 1


def test_unseen_simulated_experiments(network: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "VALIDATION_SEEDS", range(910_000_000, 910_000_012))
    panels = validation_panels(shipped.TEACHING)
    maps = predict_panels(network.model, panels, NormaliseParameters())
    scores = score_panels(maps, panels, threshold=network.card.threshold)
    assert scores.n_true > 100
    assert scores.precision > 0.85
    assert scores.band_recall["12-inf"] > 0.93
    assert scores.centre_rms is not None
    assert scores.centre_rms < 0.5


@pytest.mark.parametrize(
    ("name", "file", "frames", "least_recall"),
    [
        ("snase", "stills.h5", (0, 5), 0.9),
        ("thaumatin", "stills.h5", (0, 7), 0.9),
        ("pilatus6m", "still.h5", (0,), 0.9),
    ],
)
def test_peaks_that_crystfel_finds_in_real_stills_are_found(
    network: LoadedModel, realdata: Path, name: str, file: str, frames: tuple[int, ...], least_recall: float
) -> None:
    listed = pd.read_csv(realdata / name / "crystfel_peaks.csv")
    n_listed = n_found = 0
    for number, found in find_in_stills(network, realdata / name / file, frames):
        theirs = listed[listed["frame"] == number][["ss", "fs"]].to_numpy(np.float32)
        rows, _ = match_centres(found, theirs, 4.0)
        n_listed += len(theirs)
        n_found += len(rows)
    assert n_found / n_listed > least_recall


def test_blank_real_stills_stay_nearly_empty(network: LoadedModel, realdata: Path) -> None:
    for _, found in find_in_stills(network, realdata / "thaumatin" / "stills.h5", (8, 9)):
        assert len(found) < 15


def find_in_stills(
    network: LoadedModel, path: Path, frames: tuple[int, ...]
) -> Iterator[tuple[int, np.ndarray]]:
    """Give number and peak centres (n, 2) of frames of a one-panel file; negative pixels are bad."""
    edge = EdgeOnCpu(network.model, network.normalisation)
    with h5py.File(path) as file:
        mask = file["entry/mask"][...] != 0 if "mask" in file["entry"] else True
        for number in frames:
            image = file["entry/data/data"][number]
            good = (image >= 0) & mask
            logits = edge.logits(image[None], good[None])[0]
            probability = expit(logits)
            yield number, decode_panel(probability, threshold=network.card.threshold)
