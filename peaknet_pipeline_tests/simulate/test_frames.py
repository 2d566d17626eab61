"""Frames: photon statistics, truth and reproducibility."""

from dataclasses import replace

import numpy as np
import pytest

from peaknet_pipeline.geometry.maps import resolution_map
from peaknet_pipeline.simulate.background import add_streak
from peaknet_pipeline.simulate.catalogue import DETECTORS
from peaknet_pipeline.simulate.demo import demo_experiment, demo_runs
from peaknet_pipeline.simulate.detectors import make_detector
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.experiment import (
    BackgroundParameters,
    DefectParameters,
    ResponseParameters,
    RunConditions,
    ShotParameters,
)
from peaknet_pipeline.simulate.frames import make_simulator, simulate_frame, simulate_frames
from peaknet_pipeline.simulate.shots import draw_shot
from peaknet_pipeline.simulate.truth import collect_truth

PHOTON_COUNTER = ResponseParameters(
    dtype="int32",
    adu_per_photon=1.0,
    read_noise_photons=0.0,
    common_mode_photons=0.0,
    charge_sharing=0.0,
    gain_spread=0.0,
)
NO_DEFECTS = DefectParameters(hot_fraction=0.0, dead_fraction=0.0, noisy_fraction=0.0)


@pytest.fixture(scope="module")
def clean():
    """The demonstration with a perfect photon counter."""
    return replace(demo_experiment(), response=PHOTON_COUNTER, defects=NO_DEFECTS)


def test_blank_shots_have_no_reflections_and_hits_have():
    frames = list(simulate_frames(demo_experiment(), 12, 8))
    kinds = {f.shot.kind for f in frames}
    assert kinds >= {"blank", "hit"}
    for frame in frames:
        if frame.shot.kind == "blank":
            assert not frame.reflections
            assert not frame.spot_photons.any()
        else:
            assert len(frame.reflections["fs"]) > 20
            assert frame.spot_photons.sum() > 0


def test_the_share_of_hits_is_the_one_asked_for():
    experiment = demo_experiment()
    for conditions, expected in ((RunConditions(), 0.5), (RunConditions(hit_fraction=0.12), 0.12)):
        shots = [draw_shot(experiment, conditions, seed=2, run_number=1, frame=f) for f in range(2000)]
        hits = np.mean([s.kind != "blank" for s in shots])
        assert hits == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 2000))


def test_photons_vary_as_poisson_says(clean):
    simulator = make_simulator(clean)
    shot = draw_shot(clean, simulator.conditions, seed=1, run_number=1, frame=3)
    frames = [simulate_frame(simulator, replace(shot, detector_seed=s)) for s in range(40)]
    expected = frames[0].spot_photons.astype(float) + frames[0].background_photons
    data = np.stack([f.data for f in frames]).astype(float)
    chi2 = ((data - expected) ** 2 / np.maximum(expected, 1e-9)).sum(axis=0)[expected > 0.05] / len(frames)
    assert chi2.mean() == pytest.approx(1, abs=0.01)
    assert data.mean() == pytest.approx(expected.mean(), rel=0.002)


def test_the_spot_map_holds_the_listed_photons(clean):
    for frame in simulate_frames(clean, 6, 4):
        if frame.reflections:
            inside = frame.reflections["usable"]
            assert frame.spot_photons.sum() == pytest.approx(frame.reflections["photons"].sum(), rel=0.05)
            assert inside.mean() > 0.5


def test_a_lone_spots_pixels_hold_its_photons_at_its_position(clean):
    checked = 0
    for frame in simulate_frames(replace(clean, background=BackgroundParameters()), 8, 4):
        r = frame.reflections
        for n in np.flatnonzero(r["photons"] > 50) if r else ():
            p, s, f = int(r["panel"][n]), round(r["ss"][n]), round(r["fs"][n])
            near = (r["panel"] == p) & (np.hypot(r["fs"] - r["fs"][n], r["ss"] - r["ss"][n]) < 16)
            if not (8 <= s < 168 and 8 <= f < 248) or near.sum() > 1:
                continue
            patch = frame.spot_photons[p, s - 7 : s + 8, f - 7 : f + 8].astype(float)
            rows, columns = np.mgrid[s - 7 : s + 8, f - 7 : f + 8]
            assert patch.sum() == pytest.approx(r["photons"][n], rel=0.03)
            assert (patch * rows).sum() / patch.sum() == pytest.approx(r["ss"][n], abs=0.03)
            assert (patch * columns).sum() / patch.sum() == pytest.approx(r["fs"][n], abs=0.03)
            checked += 1
    assert checked > 20


def test_a_frame_is_the_same_however_it_is_asked_for():
    experiment = demo_experiment()
    together = list(simulate_frames(experiment, 6, 9, workers=2))
    alone = [next(simulate_frames(experiment, 1, 9, start=n, workers=1)) for n in range(6)]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
        assert a.shot.kind == b.shot.kind
    assert not np.array_equal(together[0].data, next(simulate_frames(experiment, 1, 10)).data)
    assert not np.array_equal(together[0].data, next(simulate_frames(experiment, 1, 9, run_number=2)).data)


def test_hot_pixels_the_mask_does_not_know_stay_in_the_data():
    experiment = replace(demo_experiment(), defects=DefectParameters(hot_photons=100.0, known_fraction=0.5))
    simulator = make_simulator(experiment)
    unknown = simulator.pixels.truly_bad & ~simulator.pixels.known_bad
    assert 0.3 < unknown.sum() / simulator.pixels.truly_bad.sum() < 0.7
    frame = next(simulate_frames(experiment, 1, 1))
    hot = unknown & (simulator.pixels.excess > 50)
    assert hot.sum() > 5
    assert (frame.data[hot] > 40 * 20).all()
    dead = simulator.pixels.truly_bad & (simulator.pixels.gain == 0)
    assert abs(frame.data[dead].mean()) < 10


def test_reflections_on_bad_or_saturated_pixels_are_not_usable():
    defects = DefectParameters(dead_fraction=0.02)
    experiment = replace(demo_experiment(), defects=defects)
    simulator = make_simulator(experiment)
    for frame in simulate_frames(experiment, 6, 4):
        r = frame.reflections
        if not r:
            continue
        at = (r["panel"], np.rint(r["ss"]).astype(int), np.rint(r["fs"]).astype(int))
        assert not (r["usable"] & simulator.pixels.truly_bad[at]).any()
        assert 0.5 < r["usable"].mean() < 0.95


def test_charge_sharing_keeps_the_charge_and_correlates_neighbours(clean):
    flat = BackgroundParameters(flat_photons=3.0, air_photons=0.0, water_photons=0.0)
    sums, correlations = [], []
    for sharing in (0.0, 0.5):
        response = replace(PHOTON_COUNTER, dtype="float32", charge_sharing=sharing)
        experiment = replace(
            clean, background=flat, response=response, shots=ShotParameters(hit_fraction=0.0)
        )
        frame = next(simulate_frames(experiment, 1, 3))
        deviation = frame.data - frame.background_photons
        sums.append(frame.data.sum())
        correlations.append((deviation[:, :, 1:] * deviation[:, :, :-1]).mean() / deviation.var())
    assert sums[1] == pytest.approx(sums[0], rel=0.005)
    assert abs(correlations[0]) < 0.01
    assert correlations[1] > 0.03


def test_common_mode_shifts_whole_chips_together(clean):
    response = replace(PHOTON_COUNTER, dtype="float32", common_mode_photons=5.0, chip_ss=88, chip_fs=128)
    experiment = replace(clean, response=response, shots=ShotParameters(hit_fraction=0.0))
    frame = next(simulate_frames(experiment, 1, 3))
    shift = (frame.data - frame.background_photons).reshape(8, 2, 88, 2, 128).mean(axis=(2, 4))
    assert 3 < shift.std() < 8
    within = (frame.data - frame.background_photons).reshape(8, 2, 88, 2, 128).std(axis=(2, 4))
    assert within.max() < 2


def test_saturation_limits_the_signal():
    experiment = demo_experiment()
    response = replace(experiment.response, saturation_photons=30.0)
    frames = list(simulate_frames(replace(experiment, response=response), 6, 4))
    assert max(f.data.max() for f in frames) < 20 * (30 + 12 * 5)
    strong = [f for f in frames if f.spot_photons.max() > 60]
    assert strong
    for frame in strong:
        assert not frame.reflections["usable"].all()


@pytest.mark.parametrize("name", list(DETECTORS))
def test_every_detector_gives_frames_of_its_type(name):
    experiment = draw_experiment(17, detector=name, sample="lysozyme")
    experiment = replace(experiment, shots=ShotParameters(hit_fraction=1.0))
    if np.prod(experiment.geometry.stack_shape) > 10_000_000:
        pytest.skip("too many pixels for a quick test; its smaller sibling is tested")
    frame = next(simulate_frames(experiment, 1, 1))
    assert frame.data.shape == experiment.geometry.stack_shape
    assert frame.data.dtype == experiment.response.dtype
    assert len(frame.reflections["fs"])
    known = make_simulator(experiment).pixels.known_bad
    good = frame.data[~known].astype(float)
    assert np.isfinite(good).all()
    expected = (frame.spot_photons + frame.background_photons)[~known] * experiment.response.adu_per_photon
    assert np.median(good - expected) == pytest.approx(
        experiment.response.offset_adu, abs=2 * experiment.response.adu_per_photon
    )
    if experiment.defects.masked_as == "nan":
        assert np.isnan(frame.data[known]).all()


@pytest.mark.parametrize("name", list(DETECTORS))
def test_panels_do_not_overlap(name):
    geometry = make_detector(name, 0.1, 9500.0)
    boxes = []
    for panel in geometry.panels:
        n_fs, n_ss = panel.max_fs - panel.min_fs + 1, panel.max_ss - panel.min_ss + 1
        corners = np.array(
            [
                (
                    panel.corner_x + f * panel.fs_vec[0] + s * panel.ss_vec[0],
                    panel.corner_y + f * panel.fs_vec[1] + s * panel.ss_vec[1],
                )
                for f in (0, n_fs)
                for s in (0, n_ss)
            ]
        )
        boxes.append((*corners.min(axis=0), *corners.max(axis=0)))
    for i, a in enumerate(boxes):
        assert not (a[0] < 0 < a[2] and a[1] < 0 < a[3]) or len(boxes) == 1
        for b in boxes[i + 1 :]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_draws_differ_between_seeds_and_repeat_with_one():
    assert draw_experiment(5) == draw_experiment(5)
    drawn = [draw_experiment(s) for s in range(40)]
    assert len({e.sample.name for e in drawn}) > 8
    assert len({e.geometry.stack_shape for e in drawn}) == len(DETECTORS)


def test_the_demonstration_has_strong_and_weak_hits():
    truth = collect_truth(simulate_frames(demo_experiment(), 60, 1))
    findable = truth.reflections[truth.reflections.snr > 5].groupby("frame").size()
    assert 30 <= findable.median() <= 120
    assert findable.quantile(0.1) < 35
    assert findable.quantile(0.9) > 70
    conditions = [run.conditions for run in demo_runs()]
    assert conditions[1].hit_fraction < 0.2
    assert conditions[2].background_factor > 1.5


def test_background_streak_and_ring_raise_the_background_from_run_to_run():
    experiment = replace(
        demo_experiment(), shots=ShotParameters(hit_fraction=0.0, background_spread=0.0, miss_probability=0.0)
    )
    drift = (
        RunConditions(),
        RunConditions(background_factor=2.2, streak_factor=3.0, ring_photons=1.5),
        RunConditions(background_factor=5.0, streak_factor=5.0, ring_photons=3.0),
    )
    levels = [
        next(simulate_frames(experiment, 1, 1, conditions=conditions)).background_photons.mean()
        for conditions in drift
    ]
    assert levels[0] < 0.6 * levels[1] < 0.36 * levels[2]


def test_the_background_is_polarised_falls_with_solid_angle_and_stops_at_the_beamstop():
    experiment = draw_experiment(3, detector="rayonix", sample="lysozyme")
    flat = BackgroundParameters(
        flat_photons=1.0, air_photons=0.0, water_photons=0.0, diffuse_photons=0.0, shadow_radius_px=40.0
    )
    experiment = replace(experiment, background=flat, beam=replace(experiment.beam, polarisation=1.0))
    maps = make_simulator(experiment).background
    panel = experiment.geometry.panels[0]
    tangent = (1800 - 959.5) * panel.pixel_size_m / panel.clen_m
    cosine = 1 / np.hypot(1, tangent)
    assert maps.scatter[0, 1800, 960] == pytest.approx(cosine**3, rel=1e-3)
    assert maps.scatter[0, 960, 1800] == pytest.approx(cosine**5, rel=1e-3)
    assert maps.transmission[0, 960, 960] == 0
    assert maps.transmission[0, 960, 960 + 30] == 0
    assert maps.transmission[0, 960, 960 + 50] == 1


def test_rings_lie_at_their_spacings():
    experiment = draw_experiment(3, detector="rayonix", sample="lysozyme")
    ring = BackgroundParameters(
        flat_photons=0.0,
        air_photons=0.0,
        water_photons=0.0,
        diffuse_photons=0.0,
        ring_photons=5.0,
        ring_d_angstrom=6.0,
    )
    experiment = replace(experiment, background=ring)
    scatter = make_simulator(experiment).background.scatter
    inv_d = resolution_map(experiment.geometry, experiment.beam.photon_energy_ev)
    brightest = inv_d[scatter > 0.98 * scatter.max()]
    np.testing.assert_allclose(brightest, 1 / 6.0, atol=0.003)


def test_a_jet_streak_is_brighter_in_its_direction_and_flickers():
    experiment = draw_experiment(3, detector="rayonix", sample="lysozyme")
    streak = np.zeros(experiment.geometry.stack_shape, dtype=np.float32)
    add_streak(streak, experiment.geometry, photons=10.0, angle_deg=0.0, width_px=3.0)
    assert streak[0, 960, 1010] == pytest.approx(10 * 3 / 3.5 * np.exp(-50.5 / 300) * 50 / 50.5, rel=0.02)
    assert streak[0, 1010, 960] < 0.01
    background = BackgroundParameters(
        streak_photons=30.0, streak_angle_deg=90.0, air_photons=0.0, water_photons=0.0
    )
    jet = replace(demo_experiment(), background=background, shots=ShotParameters(hit_fraction=0.0))
    maps = [frame.background_photons for frame in simulate_frames(jet, 4, 1)]
    assert len({float(m.max()) for m in maps}) == 4
    assert len({int(m.argmax()) for m in maps}) > 1
