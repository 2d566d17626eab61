"""The second look finds lattices that no list of certain spots holds, and nothing in noise."""

from dataclasses import replace

import numpy as np
import pytest

from peaknet_pipeline.indexing.second_look import frame_search
from peaknet_pipeline.indexing.second_look.acceptance import (
    distinct_orientations,
    false_rate_limit,
    make_control,
)
from peaknet_pipeline.indexing.second_look.diffraction_model import make_rows
from peaknet_pipeline.indexing.second_look.flat_detector import scrambled_places
from peaknet_pipeline.indexing.second_look.frame_search import SecondLook
from peaknet_pipeline.indexing.second_look.lattice_likelihood import near_points
from peaknet_pipeline.indexing.second_look.spot_likelihood import (
    LEAST_MEAN,
    draw_map,
    likelihood_tables,
    significance_bins,
)
from peaknet_pipeline.indexing.symmetry import misorientation_deg
from peaknet_pipeline.types import UnitCell
from peaknet_pipeline_tests.indexing.weak_scenes import (
    FAST,
    LYSOZYME,
    MODEL,
    WAVE,
    flat_square,
    make_scene,
    noise_frame,
    random_rotation,
)

FLAT = flat_square()


@pytest.fixture(scope="module")
def look() -> SecondLook:
    return SecondLook(FLAT, LYSOZYME, MODEL, FAST)


@pytest.fixture(scope="module")
def bar(look: SecondLook) -> float:
    return make_control([], n_orientations=distinct_orientations(look.target, FLAT, WAVE)).bar


def test_points_near_the_sphere_are_those_that_a_plain_loop_finds() -> None:
    rows = make_rows(np.diag([1 / 60.0, 1 / 47.0, 1 / 92.0]), 0.21)
    rotation = random_rotation(5)
    found = near_points(rows, rotation, WAVE, 0.001, 0.004)
    n = np.arange(-20, 21)
    grid = np.stack(np.meshgrid(n, n, n, indexing="ij"), axis=-1).reshape(-1, 3) @ np.diag(
        [1 / 60, 1 / 47, 1 / 92]
    )
    length = np.linalg.norm(grid, axis=1)
    q = grid @ rotation.T
    error = (length**2 + 2 * WAVE * q[:, 2]) / (2 * WAVE)
    wanted = grid[(length > 0) & (length <= 0.21) & (np.abs(error) <= 0.001 + 0.004 * length)]
    assert {tuple(np.round(p, 6)) for p in found} == {tuple(np.round(p, 6)) for p in wanted}


def test_frames_of_spots_that_are_hardly_certain_one_by_one_are_indexed(look: SecondLook, bar: float) -> None:
    right = 0
    for seed in range(6):
        scene = make_scene(look, 1.7, seed)
        score, deformation, _ = look.search(scene.frame)
        off = misorientation_deg(look.axes(deformation), look.axes(scene.rotation), LYSOZYME)
        right += score >= bar and off < 0.3
        assert score < bar or off < 0.3, "an accepted lattice is the right one"
    assert right >= 5


def test_noise_and_scrambled_copies_stay_below_the_bar(look: SecondLook, bar: float) -> None:
    generator = np.random.default_rng(0)
    scene = make_scene(look, 2.5, 11)
    scores = [look.search(noise_frame(FLAT, seed))[0] for seed in range(6)]
    for _ in range(6):
        places = scrambled_places(FLAT, scene.frame.places, generator)
        scores.append(look.search(replace(scene.frame, places=places))[0])
    assert max(scores) < bar
    assert look.search(scene.frame)[0] > bar


def test_at_fixed_orientations_noise_exceeds_t_nats_no_more_often_than_exp_minus_t(look: SecondLook) -> None:
    evidence = look.evidence(noise_frame(FLAT, 3))
    scores = np.array([look.score(evidence, random_rotation(seed)) for seed in range(3000)])
    for t in (1.0, 2.0, 3.0):
        assert (scores >= t).mean() <= 1.5 * np.exp(-t)


def test_turning_everything_about_the_beam_turns_the_answer(look: SecondLook) -> None:
    scene = make_scene(look, 2.5, 21)
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    turned = replace(scene.frame, places=scene.frame.places @ quarter[:2, :2].T)
    _, deformation, _ = look.search(turned)
    off = misorientation_deg(look.axes(deformation), look.axes(quarter @ scene.rotation), LYSOZYME)
    assert off < 0.2


def test_the_order_of_the_spots_does_not_matter(look: SecondLook) -> None:
    scene = make_scene(look, 2.5, 22)
    order = np.random.default_rng(1).permutation(len(scene.frame.places))
    shuffled = replace(
        scene.frame, places=scene.frame.places[order], significance=scene.frame.significance[order]
    )
    first, second = look.search(scene.frame), look.search(shuffled)
    assert first[0] == pytest.approx(second[0], abs=1e-6)
    assert np.allclose(first[1], second[1])


@pytest.mark.parametrize("wrong", [{"c": 37.9 * 1.08}, {"a": 79.1 * 1.3, "b": 79.1 * 1.3}])
def test_a_wrong_cell_finds_nothing(look: SecondLook, bar: float, wrong: dict[str, float]) -> None:
    other = SecondLook(FLAT, replace(LYSOZYME, **wrong), MODEL, FAST)
    assert max(other.search(make_scene(look, 1.7, seed).frame)[0] for seed in range(4)) < bar


def test_both_lattices_of_a_frame_are_found(look: SecondLook, bar: float) -> None:
    one, two = make_scene(look, 3.0, 31), make_scene(look, 3.0, 32)
    both = replace(
        one.frame,
        places=np.concatenate([one.frame.places, two.frame.places]),
        significance=np.concatenate([one.frame.significance, two.frame.significance]),
    )
    found = look.lattices(both, bar)
    assert len(found) == 2
    for scene in (one, two):
        off = min(misorientation_deg(f.axes, look.axes(scene.rotation), LYSOZYME) for f in found)
        assert off < 0.3


def test_a_lattice_from_elsewhere_is_verified_by_its_score(look: SecondLook, bar: float) -> None:
    scene = make_scene(look, 2.0, 41)
    right, _ = look.verify(scene.frame, [look.axes(scene.rotation)])
    wrong, _ = look.verify(scene.frame, [look.axes(random_rotation(999))])
    assert right[0].score > bar > wrong[0].score


def test_the_evidence_of_a_bright_spot_is_bounded(look: SecondLook) -> None:
    frame = noise_frame(FLAT, 7)
    one_bright = replace(
        frame, significance=np.where(np.arange(3000) == 0, 500.0, frame.significance).astype(np.float32)
    )
    tables = likelihood_tables(
        draw_map(FLAT, one_bright.places, one_bright.significance), look.rings, one_bright.background
    )
    assert 4.0 < tables.max() < 11.0
    faint = tables[:, :, : int(np.log2(0.02 / LEAST_MEAN))]
    assert np.abs(faint).max() < 1.0, "an expected fiftieth of a photon is hardly evidence for anything"


def test_bins_hold_their_lower_edge() -> None:
    assert significance_bins(np.array([0.0, 1.99, 2.0, 2.49, 2.5, 99.0], dtype=np.float32)).tolist() == [
        0,
        0,
        1,
        1,
        2,
        17,
    ]


def test_six_hundred_copies_show_half_a_per_cent() -> None:
    assert false_rate_limit(600) == pytest.approx(0.005, abs=1e-4)
    assert false_rate_limit(0) == 1.0
    control = make_control([3.0, 31.0, -np.inf], n_orientations=1e8)
    assert control.bar == 31.5
    assert control.floor == pytest.approx(23.7, abs=0.1)


def test_a_cell_of_a_thousand_angstrom_is_counted_to_a_lower_resolution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frame_search, "MOST_POINTS", 70_000)
    large = UnitCell(1000.0, 1000.0, 1000.0, 90.0, 90.0, 90.0, "cubic", "P", "*")
    rows = SecondLook(FLAT, large, MODEL, FAST).rows
    assert (rows.last - rows.first + 1).sum() == pytest.approx(70_000, rel=0.05)
    small = SecondLook(FLAT, LYSOZYME, MODEL, FAST)
    assert small.rows.max_inv_d == MODEL.max_inv_d
