"""Raw frames to peaks with a trained network, on whichever device there is."""

import numpy as np
import torch
from torch import Tensor

from peaknet_pipeline.devices import choose_device
from peaknet_pipeline.errors import StreamError
from peaknet_pipeline.geometry.usable import flag_unusable, usable_values
from peaknet_pipeline.infer.calibrate_torch import DeviceCalibration
from peaknet_pipeline.infer.decode import decode_frames, logit_of, peak_pixels
from peaknet_pipeline.infer.decode_torch import decode_tensors
from peaknet_pipeline.infer.device import DevicePanels, Panels, PanelStep
from peaknet_pipeline.infer.found import Found, PeakPixels
from peaknet_pipeline.infer.network import HostLogits, Network
from peaknet_pipeline.infer.params import DecodeParams, EngineParams
from peaknet_pipeline.infer.transfer import Uploader, as_tensor
from peaknet_pipeline.runs.calibrate import Calibration, CalibrationParams
from peaknet_pipeline.schemas import PEAKS, PeakTable
from peaknet_pipeline.tables import empty_table
from peaknet_pipeline.types import BoolArray, Float32Array, FrameArray, Geometry


class Engine:
    """Finds the peaks of raw frames with a network; callable from several threads.

    On a GPU every calling thread has its own stream and pinned buffer, so that two threads overlap one
    batch's transfer with the other's computation; only peak lists come back. On the CPU the decoding is
    compiled code.

    Parameters
    ----------
    network : Network
    bad_pixels : (n_panels, ss, fs) bool
        True = bad.
    decode : DecodeParams, optional
    params : EngineParams, optional
    geometry : Geometry, optional
        Its flags (flag_morethan, …) tell pixels that are bad in single frames.
    calibration : (Calibration, CalibrationParams), optional
        Frames are raw, of a gain-switching detector, and become keV first.

    """

    def __init__(
        self,
        network: Network,
        *,
        bad_pixels: BoolArray,
        decode: DecodeParams | None = None,
        params: EngineParams | None = None,
        geometry: Geometry | None = None,
        calibration: tuple[Calibration, CalibrationParams] | None = None,
    ) -> None:
        self.params = params or EngineParams()
        self.decode = decode or DecodeParams()
        self.network = network
        self.device = choose_device(self.params.device)
        self.dtype = choose_dtype(self.params.precision, self.device)
        self._host_logits = self._way_on_host()
        self._cut = logit_of(network.threshold)
        self._bad_pixels = np.array(bad_pixels, dtype=np.bool_)
        self._bad = torch.from_numpy(self._bad_pixels).to(self.device)
        self._usable = usable_values(geometry)
        self._calibrate = DeviceCalibration(*calibration, self.device) if calibration is not None else None
        model = network.model.to(self.device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        step = PanelStep(network, model, self.dtype, self._usable, self.decode.min_neighbour)
        self._panels = DevicePanels(step, self.device, self.params)
        self._upload = Uploader(self.device)

    def __call__(self, frames: FrameArray, first_frame: int = 0) -> PeakTable:
        """Find the peaks of raw frames (n, n_panels, ss, fs), numbered from ``first_frame``.

        Raises
        ------
        StreamError
            Frames of another shape than the mask.
        ModelError
            The network's output has another shape than its input.

        """
        return self._find(frames, first_frame, with_pixels=False).peaks

    def segment(self, frames: FrameArray, first_frame: int = 0) -> Found:
        """Find the peaks and the pixels that belong to them; raises as a call does."""
        return self._find(frames, first_frame, with_pixels=True)

    def logits(self, frames: FrameArray) -> Float32Array:
        """Return the logit of "peak" of every pixel, (n, n_panels, ss, fs) float32, on the host.

        It may be −100 wherever ``min_neighbour`` lets decoding keep no peak.
        """
        self._check(frames)
        if self.device.type == "cpu":
            frames = self._calibrated(frames)
            return self._logits_on_host(frames, self._frame_mask(frames))
        with self._upload.lane() as lane, torch.inference_mode():
            raw = lane.upload(frames)
            raw = raw if self._calibrate is None else self._calibrate(raw)
            panels = self._run(raw)
            panels = self._run(raw, exact=True) if bool(panels.unsure.any()) else panels
            return np.asarray(panels.logits.reshape(frames.shape).cpu().numpy())

    def _find(self, frames: FrameArray, first_frame: int, *, with_pixels: bool) -> Found:
        self._check(frames)
        if not len(frames):
            empty = PeakPixels.from_masks(np.zeros(frames.shape, dtype=np.bool_))
            return Found(empty_table(PEAKS), empty if with_pixels else None)
        if self.device.type == "cpu":
            return self._find_on_host(frames, first_frame, with_pixels=with_pixels)
        return self._find_on_device(frames, first_frame, with_pixels=with_pixels)

    def _find_on_host(self, frames: FrameArray, first_frame: int, *, with_pixels: bool) -> Found:
        frames = self._calibrated(frames)
        bad = self._frame_mask(frames)
        logits = self._logits_on_host(frames, bad)
        peaks = decode_frames(
            frames,
            logits,
            bad,
            threshold=self.network.threshold,
            params=self.decode,
            first_frame=first_frame,
            n_threads=self.params.decode_threads,
        )
        return Found(peaks, peak_pixels(frames, logits, bad, self._cut) if with_pixels else None)

    def _find_on_device(self, frames: FrameArray, first_frame: int, *, with_pixels: bool = False) -> Found:
        with self._upload.lane() as lane:
            return self.find_resident(lane.upload(frames), first_frame, with_pixels=with_pixels)

    def find_resident(self, frames: Tensor, first_frame: int = 0, *, with_pixels: bool = False) -> Found:
        """Find the peaks of raw frames (n, n_panels, ss, fs) that are on the device already."""
        with torch.inference_mode():
            raw = frames if self._calibrate is None else self._calibrate(frames)
            panels = self._run(raw)
            found = self._decode(panels, len(raw), first_frame, with_pixels=with_pixels)
            # Asked once the peaks have come back, when there is nothing left to wait for. It is rarely so.
            if bool(panels.unsure.any()):
                panels = self._run(raw, exact=True)
                found = self._decode(panels, len(raw), first_frame, with_pixels=with_pixels)
        return found

    def _decode(self, panels: Panels, n_frames: int, first_frame: int, *, with_pixels: bool) -> Found:
        return decode_tensors(
            panels.pixels,
            panels.logits,
            panels.good,
            self._cut,
            len(panels.pixels) // n_frames,
            params=self.decode,
            first_frame=first_frame,
            with_pixels=with_pixels,
        )

    def _run(self, frames: Tensor, *, exact: bool = False) -> Panels:
        """Run the network on frames (n, n_panels, ss, fs) that are on the device."""
        bad = self._bad.expand(frames.shape).flatten(0, 1)
        return self._panels(frames.flatten(0, 1), bad, exact=exact)

    def _logits_on_host(self, frames: FrameArray, bad: BoolArray) -> Float32Array:
        if self._host_logits is not None:
            good = ~np.broadcast_to(bad, frames.shape).reshape(-1, *frames.shape[2:])
            return self._host_logits(frames.reshape(good.shape), good).reshape(frames.shape)
        with torch.inference_mode():
            panels = self._run(as_tensor(frames), exact=True)
            return np.asarray(panels.logits.reshape(frames.shape).numpy())

    def _calibrated(self, frames: FrameArray) -> FrameArray:
        """Return keV of raw frames that stay on the CPU."""
        if self._calibrate is None:
            return frames
        return self._calibrate(as_tensor(frames)).numpy()

    def _way_on_host(self) -> HostLogits | None:
        """Return the network's own way on CPUs, in bfloat16 as told or where the CPU computes in it."""
        if self.device.type != "cpu" or self.network.on_host is None:
            return None
        is_half = self.params.precision == "auto" and has_bfloat16()
        return self.network.on_host(torch.bfloat16 if is_half else self.dtype, self.decode.min_neighbour)

    def _frame_mask(self, frames: FrameArray) -> BoolArray:
        """Return the bad pixels, (n_panels, ss, fs), or of every frame where the geometry flags some."""
        flagged = flag_unusable(frames, self._usable)
        return self._bad_pixels if flagged is None else np.asarray(flagged | self._bad_pixels)

    def _check(self, frames: FrameArray) -> None:
        if frames.ndim != 4 or frames.shape[1:] != self._bad_pixels.shape:
            raise StreamError(
                "frames do not fit the mask of bad pixels",
                expected=f"(n, {', '.join(map(str, self._bad_pixels.shape))})",
                found=frames.shape,
                remedy="Make the engine with the mask of this run.",
            )


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the arithmetic's dtype; ``auto`` is bfloat16 on a GPU, float32 elsewhere."""
    if precision == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def has_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware."""
    known: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(known.get(name)) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))
