"""Raw frames of gain-switching detectors to keV on the device that finds peaks.

The same rules as :func:`peaknet_pipeline.runs.calibrate.calibrate_frames`.
"""

import torch
from torch import Tensor

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.infer.transfer import as_int32
from peaknet_pipeline.runs.calibrate import ENCODINGS, Calibration, CalibrationParams


class DeviceCalibration:
    """Turns raw frames into keV; NaN where the gain code is not valid or the pixel bad.

    Parameters
    ----------
    calibration : Calibration
    params : CalibrationParams
        ``photons`` is not for here: what the network sees does not depend on the unit.
    device : torch.device

    Raises
    ------
    RunError
        Photons are asked for.

    """

    def __init__(self, calibration: Calibration, params: CalibrationParams, device: torch.device) -> None:
        if params.photons:
            raise RunError("the device calibrates to keV", expected="photons = false", found="photons = true")
        encoding = ENCODINGS[params.detector]
        self.params = params
        self._bits = encoding.adc_bits
        self._stages = torch.tensor(encoding.stage_of_code, dtype=torch.int64, device=device)
        self._pedestal = torch.from_numpy(calibration.pedestal).to(device)
        self._gain = torch.from_numpy(calibration.gain).to(device)
        self._bad = torch.from_numpy(calibration.bad_pixels).to(device)

    def __call__(self, frames: Tensor) -> Tensor:
        """Return keV, float32, of raw frames (n, n_panels, ss, fs), one after the other to spare memory."""
        return torch.stack([self._calibrate(frame) for frame in frames])

    def _calibrate(self, raw: Tensor) -> Tensor:
        value = as_int32(raw)
        stage = self._stages[(value >> self._bits).long()]
        adc = (value & ((1 << self._bits) - 1)).to(torch.float32)
        chosen = stage.clamp(min=0).unsqueeze(0)
        pedestal, gain = self._pedestal.gather(0, chosen)[0], self._gain.gather(0, chosen)[0]
        kev = torch.where((stage < 0) | self._bad, torch.nan, (adc - pedestal) / gain)
        return kev if self.params.common_mode == "none" else self._without_common_mode(kev, stage == 0)

    def _without_common_mode(self, kev: Tensor, first_stage: Tensor) -> Tensor:
        chip_ss, chip_fs = self.params.chip_ss, self.params.chip_fs
        side_ss, side_fs = {"chip": (chip_ss, chip_fs), "row": (1, chip_fs), "column": (chip_ss, 1)}[
            self.params.common_mode
        ]
        n_min = max(min(self.params.common_mode_min_pixels, side_ss * side_fs // 2), 1)
        _, height, width = kev.shape
        pad = (0, -width % side_fs, 0, -height % side_ss)
        shows = first_stage & (kev.abs() < self.params.common_mode_max_kev)
        values = torch.nn.functional.pad(torch.where(shows, kev, torch.inf), pad, value=torch.inf)
        grid = (values.shape[1] // side_ss, values.shape[2] // side_fs)
        blocks = values.reshape(len(kev), grid[0], side_ss, grid[1], side_fs).transpose(2, 3).flatten(3)
        shift = _median(blocks, n_min)
        wide = shift.repeat_interleave(side_ss, 1).repeat_interleave(side_fs, 2)[:, :height, :width]
        return torch.where(first_stage, kev - wide, kev)


def _median(values: Tensor, n_min: int) -> Tensor:
    """Return the median of the finite values along the last axis; 0 with fewer than ``n_min``."""
    ordered = values.sort(dim=-1).values
    count = torch.isfinite(values).sum(dim=-1, keepdim=True)
    low = ordered.gather(-1, ((count - 1) // 2).clamp(min=0))
    high = ordered.gather(-1, (count // 2).clamp(max=values.shape[-1] - 1))
    return torch.where(count >= n_min, (low + high) / 2, 0.0)[..., 0]
