"""Raw frames of gain-switching detectors come back as the energies that were encoded."""

from pathlib import Path

import numpy as np
import pytest

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.runs.calibrate import (
    Calibration,
    CalibrationParams,
    calibrate_frames,
    make_calibration,
    pedestal_from_darks,
    split_raw,
)
from peaknet_pipeline.runs.calibrated import CalibratedRun, read_calibration, write_calibration
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.runs.statistics import compute_statistics
from peaknet_pipeline_tests.runs.files import module_geometry, write_run

SHAPE = (3, 6, 8)
CODES = {"jungfrau": (0, 1, 3), "epix10k": (0, 1)}


def constants(detector: str, seed: int = 0) -> Calibration:
    """JUNGFRAU-like: 41.5, −1.44, −0.1 ADU/keV on pedestals of 3,000, 14,000, 13,000, spread over pixels."""
    rng = np.random.default_rng(seed)
    n = len(CODES[detector])
    pedestal = np.array([3000, 14000, 13000])[:n, None, None, None] + rng.normal(0, 80, (n, *SHAPE))
    gain = np.array([41.5, -1.44, -0.1])[:n, None, None, None] * rng.normal(1, 0.03, (n, *SHAPE))
    return make_calibration(pedestal, gain)


def encode(kev: np.ndarray, calibration: Calibration, detector: str) -> np.ndarray:
    """Digitise energies: the first stage up to 200 keV, the second up to 5,000 keV, then the third."""
    stage = np.minimum(np.digitize(kev, [200.0, 5000.0]), len(CODES[detector]) - 1)
    pick = np.ix_(*(range(n) for n in SHAPE))
    adc = np.rint(calibration.pedestal[(stage, *pick)] + kev * calibration.gain[(stage, *pick)])
    return (np.array(CODES[detector])[stage] << 14 | adc.astype(int)).astype(np.uint16)


@pytest.mark.parametrize("detector", ["jungfrau", "epix10k"])
def test_energies_over_all_gain_stages_come_back(detector: str) -> None:
    calibration = constants(detector)
    kev = np.random.default_rng(1).choice(
        [0.0, 9.5, 95.0, 950.0, 4000.0, 20000.0][: 4 + 2 * (detector == "jungfrau")], (5, *SHAPE)
    )
    raw = encode(kev, calibration, detector)
    result = calibrate_frames(raw, calibration, CalibrationParams(detector=detector, common_mode="none"))
    assert result.dtype == np.float32
    step = np.abs(1 / calibration.gain[split_raw(raw, detector)[1], *np.ix_(*(range(n) for n in SHAPE))])
    assert (np.abs(result - kev) <= 0.51 * step + 1e-3).all()


def test_photons_are_energies_over_the_photon_energy_of_each_frame() -> None:
    calibration = constants("jungfrau")
    raw = encode(np.full((2, *SHAPE), 19.0), calibration, "jungfrau")
    params = CalibrationParams(common_mode="none", photons=True)
    photons = calibrate_frames(raw, calibration, params, photon_energy_ev=np.array([9500.0, 19000.0]))
    np.testing.assert_allclose(photons[0], 2.0, atol=0.01)
    np.testing.assert_allclose(photons[1], 1.0, atol=0.01)
    with pytest.raises(RunError, match=r"photons need the photon energy"):
        calibrate_frames(raw, calibration, params)


@pytest.mark.parametrize(("mode", "axes"), [("chip", (2, 3)), ("row", (3,)), ("column", (2,))])
def test_the_common_mode_goes_and_signal_stays(mode: str, axes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    calibration = constants("jungfrau")
    shape = tuple(1 if i in axes else n for i, n in enumerate((4, *SHAPE)))
    shift = rng.uniform(-1.5, 1.5, shape)
    signal = np.where(rng.random((4, *SHAPE)) < 0.1, 50.0, 0.0)
    high = rng.random((4, *SHAPE)) < 0.02
    kev = np.where(high, 900.0, signal + shift)  # in the second stage there is no common mode
    params = CalibrationParams(common_mode=mode, chip_ss=6, chip_fs=8, common_mode_min_pixels=3)
    result = calibrate_frames(encode(kev, calibration, "jungfrau"), calibration, params)
    np.testing.assert_allclose(result, np.where(high, 900.0, signal), atol=0.5)


def test_codes_that_are_not_valid_and_pixels_without_constants_are_nan() -> None:
    calibration = constants("jungfrau")
    gain = calibration.gain.copy()
    gain[1, 0, 0, 1] = 0
    calibration = make_calibration(calibration.pedestal, gain)
    raw = np.full((1, *SHAPE), 3000, np.uint16)
    raw[0, 2, 3, 4] = 2 << 14 | 3000
    result = calibrate_frames(raw, calibration, CalibrationParams(common_mode="none"))
    assert np.argwhere(np.isnan(result[0])).tolist() == [[0, 0, 1], [2, 3, 4]]


def test_darks_give_pedestals_and_noisy_pixels() -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(3000, 50, SHAPE).astype(np.float32), rng.normal(4, 0.1, SHAPE).astype(np.float32)
    std[0, 1, 2], std[1, 0, 0] = 40, 0
    pedestal, bad = pedestal_from_darks([(mean, std), (mean + 9000, std)])
    np.testing.assert_array_equal(pedestal, [mean, mean + 9000])
    assert np.argwhere(bad).tolist() == [[0, 1, 2], [1, 0, 0]]


def test_a_raw_run_reads_calibrated_and_its_statistics_are_in_kev(tmp_path: Path) -> None:
    calibration = constants("jungfrau")
    kev = np.random.default_rng(2).choice([0.0, 9.5, 600.0], (6, *SHAPE))
    write_run(tmp_path / "raw.h5", encode(kev, calibration, "jungfrau"))
    write_calibration(calibration, tmp_path / "constants.h5")
    with open_run(tmp_path / "raw.h5", module_geometry()) as raw:
        run = CalibratedRun(
            raw, read_calibration(tmp_path / "constants.h5"), CalibrationParams(common_mode="none")
        )
        assert run.info.dtype == "float32"
        np.testing.assert_allclose(run.read(1, 4), kev[1:4], atol=0.5)
        np.testing.assert_allclose(compute_statistics(run).mean, kev.mean(axis=0), atol=0.5)


def test_constants_of_another_detector_are_refused(tmp_path: Path) -> None:
    calibration = constants("epix10k")
    raw = np.zeros((1, *SHAPE), np.uint16)
    with pytest.raises(RunError, match=r"another detector, expected \(3, 3, 6, 8\), found \(2, 3, 6, 8\)"):
        calibrate_frames(raw, calibration, CalibrationParams())
    with pytest.raises(RunError, match=r"not raw frames, expected uint16, found float32"):
        calibrate_frames(raw.astype(np.float32), calibration, CalibrationParams(detector="epix10k"))  # type: ignore[arg-type]
    write_run(tmp_path / "other.h5", np.zeros((2, 4, 4), np.uint16))
    with open_run(tmp_path / "other.h5") as run, pytest.raises(RunError, match=r"does not fit the run"):
        CalibratedRun(run, calibration)
    with pytest.raises(RunError, match=r"no calibration file"):
        read_calibration(tmp_path / "other.h5")
    with pytest.raises(RunError, match=r"differ in shape"):
        Calibration(calibration.pedestal, calibration.gain[:1], calibration.bad_pixels)
