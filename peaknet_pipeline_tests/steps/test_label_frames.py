"""Labelling a run end to end on frames with known spots."""

import numpy as np
import pytest
from scipy import ndimage

from peaknet_pipeline.labels.store import open_labels, read_labels
from peaknet_pipeline.peaks.match import MatchParams
from peaknet_pipeline.schemas import FITS, FRAME_MATCHES, MATCHES, PEAKS, REFLECTIONS
from peaknet_pipeline.steps.label_frames import label_frames
from peaknet_pipeline.tables import check_table, empty_table, make_table

SHAPE = (2, 96, 128)
GAIN = 12.0


def make_run(n_frames=20, seed=0):
    """Frames in adu with a grid of spots, and rows of frame, panel, ss, fs, photons."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(8, 90, 16), np.arange(8, 120, 16), indexing="ij"), -1).reshape(
        -1, 2
    )
    frames, truth = [], []
    for frame in range(n_frames):
        centre = grid + rng.uniform(-2, 2, grid.shape)
        panel = rng.integers(0, 2, len(grid))
        photons = np.exp(rng.uniform(np.log(150), np.log(2000), len(grid)))
        mean = np.full(SHAPE, 4.0)
        ss, fs = np.indices(SHAPE[1:])
        for (s, f), p, n in zip(centre, panel, photons, strict=True):
            mean[p] += n / (2 * np.pi * 0.81) * np.exp(-((ss - s) ** 2 + (fs - f) ** 2) / 1.62)
        frames.append((rng.poisson(mean) * GAIN).astype(np.float32))
        truth.append(np.column_stack([np.full(len(grid), frame), panel, centre, photons]))
    return frames, np.concatenate(truth)


def make_peaks(rows, rng):
    ones = {name: np.ones(len(rows)) for name in ("intensity", "max_intensity", "background", "sigma", "snr")}
    shift = rng.normal(0, 0.2, (2, len(rows)))
    place = {
        "frame": rows[:, 0],
        "panel": rows[:, 1],
        "ss": rows[:, 2] + shift[0],
        "fs": rows[:, 3] + shift[1],
    }
    return make_table(PEAKS, {**place, "n_pixels": np.ones(len(rows)), **ones})


def make_reflections(rows, rng, snr):
    zero = {name: np.zeros(len(rows)) for name in ("lattice", "h", "k", "l", "inv_d", "excitation_error")}
    shift = rng.normal(0, 0.5, (2, len(rows)))
    place = {
        "frame": rows[:, 0],
        "panel": rows[:, 1],
        "ss": rows[:, 2] + shift[0],
        "fs": rows[:, 3] + shift[1],
    }
    return make_table(REFLECTIONS, {**place, **zero, "intensity": snr, "sigma": np.ones(len(rows))})


@pytest.fixture
def labelled(tmp_path):
    frames, truth = make_run()
    rng = np.random.default_rng(1)
    last = np.append(np.diff(truth[:, 0]) > 0, True)
    weak = np.arange(len(truth)) % 41 == 3
    reflections = make_reflections(truth[~last], rng, np.where(weak[~last], 0.05, 30.0))
    bad = np.zeros(SHAPE, bool)
    bad[:, 40, :] = True
    run = label_frames(
        frames.__getitem__,
        make_peaks(truth, rng),
        reflections,
        tmp_path / "labels.h5",
        bad_pixels=bad,
        adu_per_photon=GAIN,
        saturation_adu=350 * GAIN,
        provenance={"code": "1"},
    )
    return run, truth, last, weak, bad, frames, tmp_path / "labels.h5"


def test_the_tables_follow_their_schemas_and_count_the_same(labelled):
    run, *_, path = labelled
    for table, schema in ((run.fits, FITS), (run.matches, MATCHES), (run.frame_matches, FRAME_MATCHES)):
        check_table(table, schema)
    with open_labels(path) as file:
        assert len(file) == run.n_frames == 20
        assert file.n_peaks.sum() == run.n_peaks == run.fits["accepted"].sum()
        assert file.provenance == {"code": "1"}
    assert run.n_ignored == (~run.fits["accepted"]).sum()


def test_accepted_fits_sit_on_the_true_spots(labelled):
    run, truth, *_ = labelled
    fits = run.fits[run.fits["accepted"]]
    assert len(fits) > 0.85 * len(truth)
    for _, fit in fits.iloc[::7].iterrows():
        mine = truth[(truth[:, 0] == fit["frame"]) & (truth[:, 1] == fit["panel"])]
        distance = np.hypot(mine[:, 2] - fit["centre_ss"], mine[:, 3] - fit["centre_fs"])
        assert distance.min() < 0.5


def test_unpredicted_and_weak_spots_are_ignored_and_never_background(labelled):
    _, truth, last, weak, *_, path = labelled
    _, maps = read_labels(path)
    for frame, panel, ss, fs, _ in truth[last | weak]:
        assert maps[int(frame), int(panel), round(ss), round(fs)] == 255


def test_spots_of_a_second_lattice_are_peaks_and_without_it_ignored(tmp_path):
    frames, truth = make_run(4)
    rng = np.random.default_rng(1)
    second = np.arange(len(truth)) % 3 == 0
    peaks = make_peaks(truth, rng)
    both = make_reflections(truth, rng, np.full(len(truth), 30.0)).assign(lattice=second.astype(np.int16))
    seen = {}
    for name, reflections in (("both", both), ("first", both[~second].reset_index(drop=True))):
        path = tmp_path / f"{name}.h5"
        about = {"bad_pixels": np.zeros(SHAPE, bool), "adu_per_photon": GAIN, "audit_sample": 0}
        run = label_frames(frames.__getitem__, peaks, reflections, path, **about)
        assert set(run.fits["lattice"]) == set(reflections["lattice"])
        maps = read_labels(path)[1]
        seen[name] = [maps[int(f), int(p), round(ss), round(fs)] for f, p, ss, fs, _ in truth[second]]
    assert np.mean(np.array(seen["both"]) == 1) > 0.85
    assert set(seen["first"]) == {255}


def test_bad_and_saturated_pixels_are_ignored_everywhere(labelled):
    *_, bad, frames, path = labelled
    _, maps = read_labels(path)
    assert (maps[:, bad] == 255).all()
    saturated = np.stack(frames) >= 350 * GAIN
    assert saturated.any()
    assert (maps[saturated] == 255).all()


def test_every_group_of_peak_pixels_is_one_true_spot(labelled):
    _, truth, *_, path = labelled
    _, maps = read_labels(path)
    for frame in range(0, 20, 5):
        for panel in range(2):
            groups, n = ndimage.label(maps[frame, panel] == 1, structure=np.ones((3, 3)))
            centres = np.array(ndimage.center_of_mass(groups > 0, groups, range(1, n + 1)))
            mine = truth[(truth[:, 0] == frame) & (truth[:, 1] == panel), 2:4]
            distance = np.hypot(*(centres[:, None] - mine[None]).transpose(2, 0, 1))
            assert (distance.min(axis=1) < 1.0).all()
            assert len(set(distance.argmin(axis=1))) >= n - 1


def test_the_audit_against_lmfit_is_recorded(labelled):
    run, *_ = labelled
    assert run.audit is not None
    assert run.audit.n_patches == 50
    assert run.audit.agreement >= 0.95


def test_a_run_whose_frames_do_not_agree_gives_an_empty_label_file(tmp_path):
    frames, truth = make_run(2)
    rng = np.random.default_rng(2)
    reflections = make_reflections(truth, rng, np.full(len(truth), 30.0))
    run = label_frames(
        frames.__getitem__,
        make_peaks(truth[:5], rng),
        reflections,
        tmp_path / "l.h5",
        bad_pixels=np.zeros(SHAPE, bool),
        match=MatchParams(min_matched=10),
    )
    assert run.n_frames == run.n_peaks == len(run.fits) == 0
    assert run.audit is None
    assert set(run.frame_matches["reason"]) == {"fewer than 10 pairs"}
    assert len(read_labels(tmp_path / "l.h5")[0]) == 0


def test_an_added_frame_is_labelled_in_spite_of_its_match(tmp_path):
    frames, truth = make_run(3)
    rng = np.random.default_rng(2)
    run = label_frames(
        frames.__getitem__,
        make_peaks(truth[:5], rng),
        make_reflections(truth, rng, np.full(len(truth), 30.0)),
        tmp_path / "l.h5",
        bad_pixels=np.zeros(SHAPE, bool),
        match=MatchParams(min_matched=10),
        additions={1, 77},
    )
    assert read_labels(tmp_path / "l.h5")[0].tolist() == [1]
    assert run.frame_matches["reason"].tolist()[1] == "added in spite of: fewer than 10 pairs"


def test_empty_tables_give_an_empty_label_file(tmp_path):
    run = label_frames(
        lambda frame: np.zeros(SHAPE),
        empty_table(PEAKS),
        empty_table(REFLECTIONS),
        tmp_path / "l.h5",
        bad_pixels=np.zeros(SHAPE, bool),
    )
    assert run.n_frames == 0


def test_a_reader_that_fails_leaves_no_label_file(tmp_path):
    _, truth = make_run(2)
    rng = np.random.default_rng(3)
    peaks, reflections = make_peaks(truth, rng), make_reflections(truth, rng, np.full(len(truth), 30.0))

    def read(frame):
        raise OSError("truncated")

    with pytest.raises(OSError, match="truncated"):
        label_frames(read, peaks, reflections, tmp_path / "l.h5", bad_pixels=np.zeros(SHAPE, bool))
    assert list(tmp_path.iterdir()) == []
