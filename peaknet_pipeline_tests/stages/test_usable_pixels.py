"""Every finder, the statistics, the labels, the intensities and the live powder leave out the same pixels.

The claim, for any flags and data type: a frame with marked pixels gives what the same frame gives with those pixels in the
mask of bad pixels.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.geometry.usable import flag_unusable, usable_values
from peaknet_pipeline.indexing.integrate import integrate_reflections
from peaknet_pipeline.infer.arrivals import Arrival
from peaknet_pipeline.infer.engine import Engine
from peaknet_pipeline.infer.live import LiveStatistics
from peaknet_pipeline.infer.params import DecodeParams
from peaknet_pipeline.peaks.droplet import DropletParams, find_droplets
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params, find_peaks
from peaknet_pipeline.peaks.peakfinder8_kernels import device_peakfinder8
from peaknet_pipeline.peaks.scan import background_thresholds, scan_parameters
from peaknet_pipeline.runs.statistics import StatisticsAccumulator
from peaknet_pipeline.types import Geometry
from peaknet_pipeline_tests.infer.fake_network import threshold_network
from peaknet_pipeline_tests.peaks.peak_scenes import radius_map, spotty_frame

SHAPE = (2, 48, 56)
RADIUS = radius_map(SHAPE)
PARAMS = Peakfinder8Params(threshold=60, min_snr=4, min_pix=1)
# So large a sample holds whole rings: a smaller one is drawn anew where the mask changes.
SAMPLED = Peakfinder8Params(threshold=60, min_snr=4, min_pix=1, statistics="sampled", sample_size=10**4)
DROPLET = DropletParams(thr_low=40, thr_high=60, son_min=2, npix_min=1)

MARKS = {
    "uint16": [
        ({"flag_equal": 65535.0}, 65535),
        ({"flag_more_than": 65000.0}, 65001),
        ({"flag_equal": 12.0}, 12),
    ],
    "uint32": [({"flag_equal": 2.0**32 - 1}, 2**32 - 1), ({"flag_more_than": 1e6}, 2**32 - 2)],
    "int16": [({}, -(2**15)), ({"flag_less_than": -100.0}, -101), ({"flag_equal": 32767.0}, 32767)],
    "int32": [({}, -(2**31)), ({"flag_equal": -9999.0}, -9999), ({"flag_equal": 2.0**31 - 1}, 2**31 - 1)],
    "float32": [
        ({"flag_equal": -9999.0}, -9999.3),
        ({"flag_less_than": -1.0}, -1e30),
        ({"flag_equal": 0.0}, 0.4),
    ],
}


def peakfinder8(frames, bad, geometry):
    about = {"radius": RADIUS, "bad_pixels": bad, "usable": usable_values(geometry)}
    return pd.concat([find_peaks(frames, params=p, n_threads=1, **about) for p in (PARAMS, SAMPLED)])


def device(frames, bad, geometry):
    finder = device_peakfinder8(
        RADIUS, bad, PARAMS, device="cpu", kernels="torch", usable=usable_values(geometry)
    )
    return finder.find(torch.from_numpy(frames)).to_table()


def droplet(frames, bad, geometry):
    return find_droplets(frames, bad_pixels=bad, params=DROPLET, usable=usable_values(geometry))


def scan(frames, bad, geometry):
    usable = usable_values(geometry)
    thresholds = background_thresholds(frames, bad, (8.0, 32.0), usable=usable)
    grid = [Peakfinder8Params(threshold=t, min_pix=n) for t in thresholds for n in (1, 2)]
    return scan_parameters(
        frames, radius=RADIUS, bad_pixels=bad, grid=grid, score=lambda peaks, _: {"sum": peaks.intensity.sum()},
        usable=usable, n_threads=1,
    )  # fmt: skip


def network(frames, bad, geometry):
    engine = Engine(
        threshold_network(), bad_pixels=bad, decode=DecodeParams(max_pix=10**6), geometry=geometry
    )
    return engine(frames)


def statistics(frames, bad, geometry):
    accumulator = StatisticsAccumulator(SHAPE, usable=usable_values(geometry))
    accumulator.add(frames)
    found = accumulator.result()
    return pd.DataFrame(
        {n: np.where(bad, np.nan, getattr(found, n)).ravel() for n in ("mean", "std", "maximum")}
    )


def intensities(frames, bad, geometry):
    ss, fs = (v.ravel() + 0.3 for v in np.mgrid[4:44:6, 4:52:6].astype(float))
    spots = pd.DataFrame({"frame": 0, "panel": 1, "ss": ss, "fs": fs})
    return integrate_reflections(frames[:1], spots, bad_pixels=bad, usable=usable_values(geometry))


def live_powder(frames, bad, geometry):
    live = LiveStatistics(min_peaks=1, usable=usable_values(geometry))
    none = find_peaks(frames[:0], radius=RADIUS, bad_pixels=bad, params=PARAMS)
    live.add(Arrival(np.arange(len(frames)), frames, np.zeros(len(frames))), none)
    return pd.DataFrame({"powder": np.where(bad, np.nan, live.virtual_powder()).ravel()})


CONSUMERS = [peakfinder8, device, droplet, scan, network, statistics, intensities, live_powder]


@pytest.mark.parametrize("consumer", CONSUMERS)
@settings(max_examples=12, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**16))
def test_marked_pixels_count_as_bad_everywhere(consumer, data, seed):
    dtype = data.draw(st.sampled_from(sorted(MARKS)))
    flags, mark = data.draw(st.sampled_from(MARKS[dtype]))
    geometry = Geometry((), **flags)
    rng = np.random.default_rng(seed)
    frame = np.rint(spotty_frame(seed, SHAPE, RADIUS, level=20, n_spots=12)).clip(0, 30000).astype(dtype)
    marked = rng.random(SHAPE) < 0.04
    marked[:, 20:24, 10:30] = True  # a block, as a lost module gives
    frame[marked] = mark
    flagged = flag_unusable(frame, usable_values(geometry))
    assert flagged[marked].all()
    plain = np.where(flagged, 0, frame).astype(dtype)
    found = consumer(frame[None], np.zeros(SHAPE, bool), geometry)
    expected = consumer(plain[None], flagged, Geometry(()))
    pd.testing.assert_frame_equal(found, expected)
    assert len(expected) or consumer in (droplet, network)
