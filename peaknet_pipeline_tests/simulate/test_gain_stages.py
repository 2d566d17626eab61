"""Raw output of detectors that switch gain."""

from dataclasses import replace

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import DefectParameters, RunConditions, ShotParameters
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.simulate.gain_stages import (
    AGIPD,
    EPIX10K,
    JUNGFRAU,
    STAGES,
    GainStageParameters,
    draw_gain_constants,
    encode_raw,
)
from peaknet_pipeline.simulate.run import simulate_run

SHAPE = (2, 40, 60)


def decode(value, code, constants, stages):
    """Undo the raw output as a facility's calibration does, written independently of the encoder."""
    adc = value.astype(float)
    if not stages.separate_gain:
        code, adc = value >> 14, (value & 0x3FFF).astype(float)
    kev = np.full(value.shape, np.nan)
    for number, wanted in enumerate(stages.codes):
        here = code == wanted
        kev[here] = ((adc - constants.pedestal[number]) / constants.gain[number])[here]
    return kev


@pytest.mark.parametrize("stages", [JUNGFRAU, AGIPD, EPIX10K], ids=["jungfrau", "agipd", "epix10k"])
def test_calibration_recovers_the_signal_in_every_stage(stages):
    constants = draw_gain_constants(stages, SHAPE, seed=1)
    signal = np.geomspace(0.5, 40000, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
    value, code = encode_raw(signal, constants, stages, seed=2)
    assert set(np.unique(code)) == set(stages.codes)
    inside = value & 0x3FFF if not stages.separate_gain else value
    good = (inside > 0) & (inside < 16383)
    error = np.abs(decode(value, code, constants, stages) - signal)
    noise = np.array([n + 0.3 for n in stages.noise_adu]) / np.abs(stages.gain_adu_per_kev)
    allowed = 6 * noise[np.searchsorted(stages.codes, code)]
    assert good.mean() > 0.8
    assert (error < allowed)[good].all()


@pytest.mark.parametrize("stages", [JUNGFRAU, AGIPD], ids=["jungfrau", "agipd"])
def test_a_pixel_never_returns_to_a_more_sensitive_stage_as_the_signal_grows(stages):
    constants = draw_gain_constants(stages, (1, 1, 5), seed=3)
    codes = []
    for kev in np.geomspace(1, 50000, 200):
        signal = np.full((1, 1, 5), kev, dtype=np.float32)
        codes.append(np.searchsorted(stages.codes, encode_raw(signal, constants, stages, seed=0)[1]))
    assert (np.diff(np.array(codes), axis=0) >= 0).all()


def test_a_forced_stage_gives_its_pedestal():
    constants = draw_gain_constants(JUNGFRAU, SHAPE, seed=1)
    dark = np.zeros(SHAPE, dtype=np.float32)
    for number, code in enumerate(JUNGFRAU.codes):
        value, _ = encode_raw(dark, constants, JUNGFRAU, seed=5, forced_stage=number)
        assert (value >> 14 == code).all()
        difference = (value & 0x3FFF) - constants.pedestal[number]
        assert abs(difference.mean()) < 0.2
    with pytest.raises(ParameterError, match="no such gain stage"):
        encode_raw(dark, constants, JUNGFRAU, seed=5, forced_stage=3)


def test_stages_that_disagree_in_number_are_refused():
    with pytest.raises(ParameterError, match="stages disagree"):
        GainStageParameters(codes=(0, 1))


@pytest.mark.parametrize("detector", list(STAGES))
def test_a_raw_run_calibrates_to_the_calibrated_run(tmp_path, detector):
    raw = replace(
        draw_experiment(6, detector=detector, sample="lysozyme", raw=True),
        defects=DefectParameters(hot_fraction=0.0, dead_fraction=0.0, noisy_fraction=0.0),
        shots=ShotParameters(hit_fraction=1.0),
    )
    path = simulate_run(raw, tmp_path / "raw.h5", n_frames=1, seed=4)
    calibrated = next(simulate_frames(replace(raw, stages=None), 1, 4))
    with h5py.File(path) as file:
        shape = raw.geometry.stack_shape
        value = file["/entry_1/data_1/data"][0].reshape(shape)
        assert value.dtype == np.uint16
        assert ("/entry_1/data_1/gain" in file) == raw.stages.separate_gain
        code = file["/entry_1/data_1/gain"][0].reshape(shape) if raw.stages.separate_gain else None
        pedestal = file["/calibration/pedestal"][()].reshape(-1, *shape)
        gain = file["/calibration/gain"][()].reshape(-1, *shape)
    constants = type(draw_gain_constants(raw.stages, (1, 1, 1), seed=0))(pedestal, gain)
    kev = decode(value, code, constants, raw.stages)
    first = np.abs(kev - calibrated.data) < 1 / raw.stages.gain_adu_per_kev[0]
    assert first.mean() > 0.99
    bright = (
        calibrated.data
        > 2 * (raw.stages.switch_adu[0] - raw.stages.pedestal_adu[0]) / raw.stages.gain_adu_per_kev[0]
    )
    if bright.any():
        np.testing.assert_allclose(kev[bright], calibrated.data[bright], rtol=0.1)


def test_pedestal_runs_are_dark_and_forced():
    experiment = draw_experiment(6, detector="agipd1m", sample="lysozyme", raw=True)
    conditions = RunConditions(hit_fraction=0.0, background_factor=0.0, streak_factor=0.0, forced_stage=2)
    frame = next(simulate_frames(experiment, 1, 4, conditions=conditions))
    assert not frame.background_photons.any()
    assert (frame.gain_codes == experiment.stages.codes[2]).all()
