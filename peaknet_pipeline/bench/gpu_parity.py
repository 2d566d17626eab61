"""Whether a device gives what the CPU gives: peaks, logits, components, fits and lattices."""

from typing import Any

import numpy as np
import pandas as pd
import torch

from peaknet_pipeline.bench.fit import draw_patches
from peaknet_pipeline.bench.index import LYSOZYME, simulate_spots
from peaknet_pipeline.indexing.lattice import index_vectors
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.labelling import label_components
from peaknet_pipeline.infer.labelling_torch import label_components_torch
from peaknet_pipeline.infer.network import Network
from peaknet_pipeline.infer.transfer import as_tensor
from peaknet_pipeline.learn.checkpoint import load_shipped
from peaknet_pipeline.pairing import match_points
from peaknet_pipeline.peaks.fit import fit_patches
from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params
from peaknet_pipeline.peaks.peakfinder8_kernels import device_peakfinder8
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.types import BoolArray, FrameArray

NEAR_PX, LOGIT_TOLERANCE, NEAR_DEG = 0.01, 0.02, 0.02
FINDER = Peakfinder8Params(threshold=20.0)


def measure_parity(
    device: torch.device, frames: FrameArray, bad: BoolArray, *, n_patches: int, n_frames: int
) -> dict[str, Any]:
    """Return, for each result, the share that the device and the CPU have in common, and the share that is asked.

    Parameters
    ----------
    device : torch.device
    frames : (n, n_panels, ss, fs) uint16
    bad : (n_panels, ss, fs)
    n_patches, n_frames : int
        Patches that are fitted, frames of spots that are indexed.

    """
    exact, as_used = (_network(device, frames, bad, precision) for precision in ("float32", "auto"))
    shares = {
        "peakfinder8_peaks": (_peakfinder8(device, frames, bad), 0.999),
        "logits_float32": (exact["logits"], 0.9999),
        "network_peaks_float32": (exact["peaks"], 0.999),
        "network_peaks_as_used": (as_used["peaks"], 0.98),
        "labels": (_labels(device, frames), 1.0),
        "fits": (_fits(device, n_patches), 0.99),
        "lattices": (_lattices(device, n_frames), 0.99),
    }
    return {
        name: {"share": round(share, 5), "asked": bar, "met": share >= bar}
        for name, (share, bar) in shares.items()
    }


def _common(one: pd.DataFrame, other: pd.DataFrame, n_panels: int, *, within: float = NEAR_PX) -> float:
    """Share of the longer list that is paired."""
    keys = [table["frame"] * n_panels + table["panel"] for table in (one, other)]
    pairs = match_points(
        keys[0], one["fs"], one["ss"], keys[1], other["fs"], other["ss"], max_distance=within
    )
    return len(pairs.a) / max(len(one), len(other), 1)


def _peakfinder8(device: torch.device, frames: FrameArray, bad: BoolArray) -> float:
    _, ss, fs = np.indices(bad.shape)
    radius = np.hypot(ss - bad.shape[1] / 2, fs).astype(np.float32)
    expected = Peakfinder8(radius, bad, FINDER).find(frames)
    found = device_peakfinder8(radius, bad, FINDER, device=device).find_table(frames)
    return _common(found, expected, len(bad)) if len(expected) else 0.0


def _network(device: torch.device, frames: FrameArray, bad: BoolArray, precision: str) -> dict[str, float]:
    """Compare what a GPU does, in ``precision``, with the CPU's own way in float32."""
    network = Network.from_checkpoint(load_shipped())

    def engine(name: str, arithmetic: str) -> Engine:
        decode, params = InferenceParams(device=name, precision=arithmetic).parts()
        return Engine(network, bad_pixels=bad, decode=decode, params=params)

    on_host = engine("cpu", "float32")
    expected, logits = on_host(frames), on_host.logits(frames)
    on_device = engine(str(device), precision)
    peaks = on_device.find_resident(as_tensor(frames).to(device)).peaks
    given = on_device.logits(frames)
    both = (logits > -99) & (given > -99)  # one of them may leave out what decoding drops
    close = np.abs(logits - given)[both] <= LOGIT_TOLERANCE
    within = NEAR_PX if precision == "float32" else 0.5
    return {
        "peaks": _common(peaks, expected, len(bad), within=within) if len(expected) else 0.0,
        "logits": float(close.mean()) if both.any() else 0.0,
    }


def _labels(device: torch.device, frames: FrameArray) -> float:
    masks = (frames > np.quantile(frames[0], 0.9)).reshape(-1, *frames.shape[2:])
    labels, _ = label_components_torch(torch.from_numpy(masks).to(device))
    same = [
        bool((one == label_components(mask)[0]).all())
        for one, mask in zip(labels.cpu().numpy(), masks, strict=True)
    ]
    return sum(same) / len(same)


def _fits(device: torch.device, n: int) -> float:
    patches = draw_patches(n, seed=5)
    one, other = (fit_patches(patches, FitParams(device=name)) for name in ("cpu", str(device)))
    both = one.accepted & other.accepted
    close = np.abs(one.values - other.values)[:, 1:3].max(axis=1) <= NEAR_PX
    return float(np.where(both, close, one.accepted == other.accepted).mean())


def _lattices(device: torch.device, n: int) -> float:
    batch, _ = simulate_spots(n, 55, 20, np.random.default_rng(7))
    one, other = (
        index_vectors(batch, cell=LYSOZYME, params=IndexParams(max_lattices=1, device=name))
        for name in ("cpu", str(device))
    )
    theirs = dict(zip(other.batch.tolist(), other.axes, strict=True))
    near = [
        frame in theirs and misorientation_deg(axes, theirs[frame], LYSOZYME) <= NEAR_DEG
        for frame, axes in zip(one.batch.tolist(), one.axes, strict=True)
    ]
    return sum(near) / max(len(one.batch), len(other.batch), 1)
