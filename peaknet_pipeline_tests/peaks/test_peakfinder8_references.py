"""peakfinder8 against independent programs: CrystFEL's peak lists and ondamonitor's compiled finder."""

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.maps import geometry_bad_pixels, pixel_radius
from peaknet_pipeline.geometry.usable import usable_values
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8, Peakfinder8Params, find_peaks
from peaknet_pipeline_tests.peaks import plain_peakfinder8
from peaknet_pipeline_tests.peaks.peak_scenes import paired, radius_map, spotty_frame


def read_frames(path, data, shape):
    """Read a data set as (n, n_panels, ss, fs)."""
    with h5py.File(path) as file:
        return file[data][:].reshape(-1, *shape)


def crystfel_peaks(path):
    """Read CrystFEL's list; every one of these detectors is a single panel."""
    return pd.read_csv(path).assign(panel=0)


def find_with(geometry_path, frames, params):
    """Find peaks with the radius map, bad regions and value flags of a geometry."""
    geometry = read_geometry(geometry_path)
    return find_peaks(
        frames, radius=pixel_radius(geometry), bad_pixels=geometry_bad_pixels(geometry), params=params,
        usable=usable_values(geometry),
    )  # fmt: skip


def test_pilatus_frame_gives_crystfels_35_peaks(realdata):
    folder = realdata / "pilatus6m"
    frames = read_frames(folder / "still.h5", "entry/data/data", (1, 2527, 2463))
    found = find_with(folder / "crystfel_run.geom", frames, Peakfinder8Params(max_res=1200))
    reference = crystfel_peaks(folder / "crystfel_peaks.csv")
    _, recall, pairs = paired(found, reference, within=0.1)
    assert len(reference) == 35
    assert recall == 1.0
    assert len(found) <= 36
    ours, theirs = found.intensity.to_numpy()[pairs[:, 0]], reference.intensity.to_numpy()[pairs[:, 1]]
    np.testing.assert_allclose(ours, theirs, rtol=0.01)


CRYSTFEL_RUNS = {
    "thaumatin": ((1, 2527, 2463), Peakfinder8Params(threshold=10, min_snr=5, min_pix=2, max_res=1500)),
    "snase": ((1, 1024, 1024), Peakfinder8Params(threshold=300, min_snr=6, min_pix=2, max_pix=100)),
}


@pytest.mark.parametrize("name", CRYSTFEL_RUNS)
def test_stills_give_crystfels_peaks(realdata, name):
    shape, params = CRYSTFEL_RUNS[name]
    frames = read_frames(realdata / name / "stills.h5", "entry/data/data", shape)
    found = find_with(realdata / name / "stills.geom", frames, params)
    precision, recall, pairs = paired(
        found, crystfel_peaks(realdata / name / "crystfel_peaks.csv"), within=0.01
    )
    assert precision >= 0.998
    assert recall >= 0.998
    reference = crystfel_peaks(realdata / name / "crystfel_peaks.csv")
    ours, theirs = found.intensity.to_numpy()[pairs[:, 0]], reference.intensity.to_numpy()[pairs[:, 1]]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=0.006)


@pytest.fixture(scope="session")
def compiled_peakfinder8():
    """ondamonitor's compiled peakfinder8 as a function (stack, radius, good_pixels, params) -> table."""
    om = pytest.importorskip("om.algorithms._crystallography", reason="ondamonitor is not installed")

    def find(stack, radius, bad_pixels, params):
        n_panels, n_ss, n_fs = stack.shape
        slab = (n_panels * n_ss, n_fs)
        nothing = np.zeros(1, np.int32)
        values = om.peakfinder_8(
            params.max_peaks,
            stack.astype(np.float32).reshape(slab),
            (~bad_pixels).reshape(slab).astype(np.int8),
            radius.reshape(slab),
            *(0, nothing, nothing, 0),
            *(n_fs, n_ss, 1, n_panels),
            *(params.threshold, params.min_snr, params.min_pix, params.max_pix, params.local_bg_radius),
        )
        names = ("fs", "ss", "intensity", "order", "n_pixels", "max_intensity", "sigma", "snr")
        table = pd.DataFrame(dict(zip(names, values, strict=True)))
        panel = np.rint(table.ss).astype(int) // n_ss
        return table.assign(frame=0, panel=panel, ss=table.ss - panel * n_ss)

    return find


def assert_equal_to_compiled(compiled, frames):
    """Recall, precision ≥ 0.995 within 0.01 px, equal figures for the pairs; returns the number of peaks."""
    ours, theirs = [], []
    for i, (stack, radius, bad_pixels, params) in enumerate(frames):
        usable = ~bad_pixels & np.isfinite(stack)
        usable &= (radius > params.min_res) | (params.min_res == 0)
        usable &= (radius < params.max_res) | (params.max_res == 0)
        theirs.append(compiled(np.where(usable, stack, 0), radius, ~usable, params).assign(frame=i))
        options = {"radius": radius, "bad_pixels": bad_pixels, "params": params, "first_frame": i}
        ours.append(find_peaks(stack[None], **options))
    found, reference = pd.concat(ours, ignore_index=True), pd.concat(theirs, ignore_index=True)
    precision, recall, pairs = paired(found, reference, within=0.01)
    assert precision >= 0.995
    assert recall >= 0.995
    for name in ("intensity", "n_pixels", "max_intensity", "sigma", "snr"):
        a, b = found[name].to_numpy(float)[pairs[:, 0]], reference[name].to_numpy(float)[pairs[:, 1]]
        assert np.isclose(a, b, rtol=2e-3, atol=2e-2).mean() >= 0.995, name
    return len(reference)


@pytest.mark.parametrize("level", [0.3, 10.0, 300.0])
def test_synthetic_frames_give_the_compiled_peaks(compiled_peakfinder8, level):
    shape = (2, 300, 320)
    radius = radius_map(shape)
    frames = []
    for seed in range(6):
        stack = spotty_frame(seed, shape, radius, level=level, n_spots=200)
        bad = np.random.default_rng(seed).random(shape) < 0.01
        params = Peakfinder8Params(threshold=3, min_snr=3.5 + seed % 2, min_res=10, max_res=250)
        frames.append((stack, radius, bad, params))
    assert assert_equal_to_compiled(compiled_peakfinder8, frames) > 300


def single_precision_limits(stack, ring, usable, params):
    """Five passes with running sums in single precision and raster order, as the C programs keep them."""
    single = np.float32
    n_rings = ring.max() + 1
    members = [np.flatnonzero((ring.ravel() == r) & usable.ravel()) for r in range(n_rings)]
    mean, upper = np.zeros(n_rings), np.full(n_rings, np.inf)
    for r in range(n_rings):
        values = stack.ravel()[members[r]].astype(single)
        low, high = single(-1e9), single(1e9)
        for _ in range(5):
            inside = values[(values > low) & (values < high)]
            if not inside.size:
                break
            middle = np.cumsum(inside, dtype=single)[-1] / single(inside.size)
            square = np.cumsum(inside * inside, dtype=single)[-1] / single(inside.size)
            sigma = np.sqrt(max(square - middle * middle, single(0)))
            low, high = middle - single(params.min_snr) * sigma, middle + single(params.min_snr) * sigma
            high = max(high, single(params.threshold))
            mean[r], upper[r] = middle, high
    return mean, upper


def test_what_differs_from_the_compiled_peaks_is_their_single_precision(compiled_peakfinder8, monkeypatch):
    shape, params = (1, 200, 220), Peakfinder8Params(threshold=3, min_snr=3.5)
    radius, bad = radius_map(shape), np.zeros(shape, bool)
    monkeypatch.setattr(plain_peakfinder8, "ring_limits", single_precision_limits)
    n_differing = 0
    for seed in range(6):
        stack = spotty_frame(seed, shape, radius, level=30000, n_spots=200)
        names = ["panel", "fs", "ss", "intensity", "n_pixels"]
        rows = plain_peakfinder8.plain_find_peaks(stack, radius, bad, params)
        plain = pd.DataFrame(rows, columns=names).assign(frame=0)
        compiled = compiled_peakfinder8(stack, radius, bad, params)
        precision, recall, _ = paired(plain, compiled, within=0.01)
        assert (precision, recall) == (1.0, 1.0)
        ours = find_peaks(stack[None], radius=radius, bad_pixels=bad, params=params)
        n_differing += min(paired(ours, compiled, within=0.01)[:2]) < 1
    assert n_differing > 0


@pytest.mark.parametrize("frame", [0, 4, 8])
def test_real_frames_give_the_compiled_peaks(compiled_peakfinder8, realdata, frame):
    geometry = read_geometry(realdata / "thaumatin" / "stills.geom")
    stack = read_frames(realdata / "thaumatin" / "stills.h5", "entry/data/data", (1, 2527, 2463))[frame]
    settings = (Peakfinder8Params(threshold=10, max_res=1500), Peakfinder8Params(threshold=3, min_snr=4))
    radius = pixel_radius(geometry)
    assert (
        assert_equal_to_compiled(compiled_peakfinder8, [(stack, radius, stack < 0, p) for p in settings]) > 30
    )


def test_a_multi_panel_frame_gives_the_compiled_peaks(compiled_peakfinder8, realdata):
    geometry = read_geometry(realdata / "crystfel_simulated" / "jf4m.geom")
    path = realdata / "crystfel_simulated" / "jf4m.cxi"
    stack = read_frames(path, "entry_1/data_1/data", (8, 514, 1030))[0]
    bad = read_frames(path, "entry_1/data_1/mask", (8, 514, 1030))[0] != 0
    params = Peakfinder8Params(threshold=30, min_snr=5)
    assert assert_equal_to_compiled(compiled_peakfinder8, [(stack, pixel_radius(geometry), bad, params)]) > 20


def test_the_single_pass_touches_few_rings_twice(realdata):
    """The guess from the sample holds on real frames: that is what makes one pass enough."""
    geometry = read_geometry(realdata / "thaumatin" / "stills.geom")
    stack = read_frames(realdata / "thaumatin" / "stills.h5", "entry/data/data", (1, 2527, 2463))[1]
    finder = Peakfinder8(pixel_radius(geometry), stack < 0, Peakfinder8Params(threshold=10))
    finder.find(stack[None])
    assert finder.plan.n_rings > 1000
    assert finder._workspaces[0].failed.sum() < 0.05 * finder.plan.n_rings
