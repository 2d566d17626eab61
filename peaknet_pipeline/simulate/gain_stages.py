"""Raw output of detectors that switch gain per pixel, and the constants that undo it.

A pixel starts in its most sensitive stage and falls back when the signal leaves the converter's range, as in
the JUNGFRAU (two code bits above a 14-bit value), the AGIPD (a second image with the gain signal) and the
ePix10k (one code bit).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.params import Parameters, parameter
from peaknet_pipeline.simulate.compilation import compiled
from peaknet_pipeline.simulate.randomness import draw_normal_pair, start_stream
from peaknet_pipeline.types import Float32Array, Float64Array

ADC_BITS = 14
ADC_MAX = 2**ADC_BITS - 1

UInt16Array = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class GainStageParameters(Parameters):
    """The stages of an adaptive-gain detector, most sensitive first; tuples have one entry per stage."""

    gain_adu_per_kev: tuple[float, ...] = parameter((40.0, -1.45, -0.11), meaning="gain", unit="adu/keV")
    pedestal_adu: tuple[float, ...] = parameter(
        (2900.0, 14600.0, 14500.0), meaning="mean pedestal", unit="adu"
    )
    pedestal_spread_adu: float = parameter(180.0, meaning="pixel-to-pixel spread, rms", unit="adu", ge=0)
    gain_spread: float = parameter(0.03, meaning="relative pixel-to-pixel gain spread, rms", ge=0, le=0.3)
    noise_adu: tuple[float, ...] = parameter(
        (0.0, 2.5, 1.5), meaning="noise beyond the read noise", unit="adu"
    )
    switch_adu: tuple[float, ...] = parameter(
        (13500.0, 3000.0), meaning="values at which a stage gives up", unit="adu"
    )
    codes: tuple[int, ...] = parameter((0, 1, 3), meaning="gain code written for each stage")
    separate_gain: bool = parameter(False, meaning="the code is a second image, not bits above the value")

    def __post_init__(self) -> None:
        """Check the ranges and that the tuples agree in length."""
        super().__post_init__()
        n = len(self.gain_adu_per_kev)
        lengths = (len(self.pedestal_adu), len(self.noise_adu), len(self.switch_adu) + 1, len(self.codes))
        if any(length != n for length in lengths):
            raise ParameterError(
                "stages disagree in number", where="GainStageParameters", expected=n, found=lengths
            )


JUNGFRAU = GainStageParameters()
AGIPD = GainStageParameters(
    gain_adu_per_kev=(7.0, 0.24, 0.055),
    pedestal_adu=(4800.0, 4600.0, 4700.0),
    pedestal_spread_adu=250.0,
    noise_adu=(0.0, 6.0, 6.0),
    switch_adu=(7500.0, 8500.0),
    codes=(5000, 6600, 7600),
    separate_gain=True,
)
EPIX10K = GainStageParameters(
    gain_adu_per_kev=(16.0, 0.6),
    pedestal_adu=(2600.0, 2800.0),
    noise_adu=(0.0, 4.0),
    switch_adu=(13000.0,),
    codes=(0, 1),
)
STAGES = {"jungfrau4m": JUNGFRAU, "agipd1m": AGIPD, "epix10k2m": EPIX10K}
"""Stages of the detectors that have them, by detector name; typical values."""


@dataclass(frozen=True)
class GainConstants:
    """Each pixel's ``pedestal`` in adu and ``gain`` in adu/keV, both (n_stages, n_panels, ss, fs)."""

    pedestal: Float32Array
    gain: Float32Array


def draw_gain_constants(
    stages: GainStageParameters, shape: tuple[int, int, int], *, seed: int
) -> GainConstants:
    """Draw pedestals and gains for a detector of ``shape`` (n_panels, ss, fs)."""
    generator = np.random.default_rng([seed, 4])
    pedestal = [
        level + stages.pedestal_spread_adu * generator.standard_normal(shape, dtype=np.float32)
        for level in stages.pedestal_adu
    ]
    gain = [
        level * (1 + stages.gain_spread * generator.standard_normal(shape, dtype=np.float32))
        for level in stages.gain_adu_per_kev
    ]
    return GainConstants(np.stack(pedestal).astype(np.float32), np.stack(gain).astype(np.float32))


def encode_raw(
    signal_kev: Float32Array,
    constants: GainConstants,
    stages: GainStageParameters,
    *,
    seed: int,
    forced_stage: int | None = None,
) -> tuple[UInt16Array, UInt16Array]:
    """Digitise a signal (n_panels, ss, fs), keV, as the detector's raw output.

    Returns
    -------
    value, code : uint16 (n_panels, ss, fs)
        With ``separate_gain`` the value and the gain code's own image; else the code sits in the two bits
        above the 14-bit value and the second array repeats it. ``forced_stage`` holds every pixel in one
        stage, as for pedestal runs.

    Raises
    ------
    ParameterError
        There is no such stage.

    """
    n_stages = len(stages.codes)
    if forced_stage is not None and not 0 <= forced_stage < n_stages:
        raise ParameterError("no such gain stage", expected=f"0 … {n_stages - 1}", found=forced_stage)
    value = np.empty(signal_kev.shape, dtype=np.uint16)
    stage = np.empty(signal_kev.shape, dtype=np.uint8)
    limits = np.array([*stages.switch_adu, 0.0])
    forced = -1 if forced_stage is None else forced_stage
    noise = np.array(stages.noise_adu)
    _convert(
        value, stage, signal_kev, constants.pedestal, constants.gain, limits, noise, forced, np.uint64(seed)
    )
    code = np.array(stages.codes, dtype=np.uint16)[stage]
    return (value, code) if stages.separate_gain else (value | (code << ADC_BITS).astype(np.uint16), code)


@compiled
def _convert(
    value: UInt16Array,
    stage: npt.NDArray[np.uint8],
    signal: Float32Array,
    pedestal: Float32Array,
    gain: Float32Array,
    limits: Float64Array,
    noise: Float64Array,
    forced: int,
    seed: Any,
) -> None:
    n_stages = pedestal.shape[0]
    state = np.zeros(1, dtype=np.uint64)
    for p in range(signal.shape[0]):
        for i in range(signal.shape[1]):
            start_stream(state, seed, 3_000_000_019 + p * signal.shape[1] + i)
            for j in range(signal.shape[2]):
                s = max(forced, 0)
                level = pedestal[s, p, i, j] + gain[s, p, i, j] * signal[p, i, j]
                while forced < 0 and s < n_stages - 1 and (level - limits[s]) * gain[s, p, i, j] > 0:
                    s += 1
                    level = pedestal[s, p, i, j] + gain[s, p, i, j] * signal[p, i, j]
                if noise[s] > 0.0:
                    level += noise[s] * draw_normal_pair(state)[0]
                value[p, i, j] = np.uint16(min(max(round(level), 0), ADC_MAX))
                stage[p, i, j] = s
