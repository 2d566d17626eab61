"""Validation's peaks as inference finds them, so that a threshold chosen by the one holds in the other."""

import numpy as np
from scipy.special import logit

from peaknet_pipeline.infer.decode import decode_frames
from peaknet_pipeline.learn.crops import ValidationPanel
from peaknet_pipeline.stages.inference import InferenceParams
from peaknet_pipeline.types import Float32Array


def decode_as_inference(probability: Float32Array, panel: ValidationPanel, threshold: float) -> Float32Array:
    """Return the centres (n, 2) of a panel's peaks, decoded with inference's defaults."""
    decode, _ = InferenceParams().parts()
    logits = logit(np.clip(probability, 1e-6, 1 - 1e-6))
    peaks = decode_frames(
        panel.image[None, None],
        logits[None, None].astype(np.float32),
        ~panel.good[None],
        threshold=threshold,
        params=decode,
    )
    return peaks[["ss", "fs"]].to_numpy(np.float32)
