"""The noise budget of a run: peakfinder8's threshold and SNR, chosen on a sample of the run's own frames."""

from dataclasses import replace

import numpy as np

from peaknet_pipeline.geometry.maps import pixel_radius
from peaknet_pipeline.params import Parameters
from peaknet_pipeline.peaks.noise_budget import keep_budget
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params, PlacedPeakfinder8Params
from peaknet_pipeline.runs.run import Run, geometry_of
from peaknet_pipeline.runs.sample import read_frames, sample_frames
from peaknet_pipeline.types import BoolArray

SAMPLED_PIXELS, MOST_FRAMES = 40_000_000, 48
"""What is looked at: as many pixels, in no more frames, spread over the run."""


def within_budget(run: Run, params: Parameters, bad_pixels: BoolArray) -> Parameters:
    """Return a finder's parameters with the noise budget replaced by the threshold and SNR that keep it.

    Parameters
    ----------
    run : Run
    params : Parameters
        Of any classical finder; those without ``false_peaks_per_mpix``, or with 0, come back as they are.
    bad_pixels : (n_panels, ss, fs) bool

    """
    if not isinstance(params, PlacedPeakfinder8Params) or params.false_peaks_per_mpix == 0:
        return params
    most = max(2, min(MOST_FRAMES, SAMPLED_PIXELS // bad_pixels.size))
    chosen = sample_frames(run.n_frames, most)
    geometry = geometry_of(run)
    kept = keep_budget(
        read_frames(run, chosen),
        Peakfinder8Params.part_of(params),
        budget=params.false_peaks_per_mpix,
        radius=pixel_radius(geometry),
        bad_pixels=bad_pixels,
        adu_per_photon=np.array([panel.adu_per_photon for panel in geometry.panels], dtype=np.float64),
        usable=run.usable,
    )
    return replace(params, threshold=kept.threshold, min_snr=kept.min_snr, false_peaks_per_mpix=0.0)
