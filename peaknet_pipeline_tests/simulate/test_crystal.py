"""Structure factors and orientations."""

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import CellError
from peaknet_pipeline.simulate.crystal import (
    draw_rotation,
    draw_structure_factors,
    make_sample,
    reciprocal_axes,
)
from peaknet_pipeline.simulate.draw import SAMPLES, find_sample


@pytest.fixture(scope="module")
def lysozyme_factors():
    return draw_structure_factors(find_sample("lysozyme"), min_d_angstrom=2.5, seed=3)


def test_reciprocal_axes_are_dual_to_the_cell_axes():
    cell = find_sample("lysozyme_triclinic").cell
    orth = np.array(
        gemmi.UnitCell(cell.a, cell.b, cell.c, cell.alpha, cell.beta, cell.gamma).orth.mat.tolist()
    )
    np.testing.assert_allclose(reciprocal_axes(cell) @ orth, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(orth, axis=0), (cell.a, cell.b, cell.c))


@pytest.mark.parametrize(
    "name", ["lysozyme", "insulin", "receptor", "trypsin", "yellow_protein", "myoglobin"]
)
def test_systematic_absences_are_left_out_and_nothing_else_is(name):
    sample = find_sample(name)
    factors = draw_structure_factors(sample, min_d_angstrom=6.0, seed=1)
    have = set(map(tuple, factors.hkl.tolist()))
    group = gemmi.find_spacegroup_by_name(sample.space_group)
    cell = gemmi.UnitCell(*(getattr(sample.cell, n) for n in ("a", "b", "c", "alpha", "beta", "gamma")))
    limit = np.abs(factors.hkl).max() + 1
    for h in range(-limit, limit + 1):
        for k in range(-3, 4):
            for m in range(-limit, limit + 1):
                if (h, k, m) == (0, 0, 0) or abs(cell.calculate_d([h, k, m]) - 6.0) < 1e-6:
                    continue
                absent = group.operations().is_systematically_absent([h, k, m])
                expected = cell.calculate_d([h, k, m]) >= 6.0 and not absent
                assert ((h, k, m) in have) == expected, (h, k, m)


def test_lysozyme_screw_axis_leaves_every_fourth_reflection_along_c(lysozyme_factors):
    hkl = lysozyme_factors.hkl
    along_c = hkl[(hkl[:, 0] == 0) & (hkl[:, 1] == 0), 2]
    assert len(along_c) > 0
    assert np.all(along_c % 4 == 0)


def test_symmetry_equivalents_and_friedel_mates_are_equally_strong(lysozyme_factors):
    values = {
        tuple(h): i for h, i in zip(lysozyme_factors.hkl.tolist(), lysozyme_factors.intensity, strict=True)
    }
    h, k, m = max(values, key=lambda t: t[0] * t[1] * t[2] * (t[0] - t[1]))
    equivalents = [(h, k, m), (-h, -k, -m), (k, h, -m), (-k, h, m), (h, -k, -m), (-h, k, m), (k, h, m)]
    assert len({values[e] for e in equivalents}) == 1


def test_intensities_follow_wilson_statistics(lysozyme_factors):
    group = gemmi.find_spacegroup_by_name("P 43 21 2").operations()
    hkl = lysozyme_factors.hkl
    unique = (hkl[:, 0] >= hkl[:, 1]) & (hkl[:, 1] >= 0) & (hkl[:, 2] >= 0)
    centric = np.asarray(group.centric_flag_array(hkl[unique].astype(np.int32)))
    acentric = lysozyme_factors.intensity[unique][~centric]
    assert len(acentric) > 2000
    error = 1 / np.sqrt(len(acentric))
    assert acentric.mean() == pytest.approx(1, abs=4 * error)
    assert (acentric**2).mean() / acentric.mean() ** 2 == pytest.approx(2, abs=0.3)
    general = (hkl[unique][centric] != 0).sum(axis=1) >= 2
    weak = lysozyme_factors.intensity[unique][centric][general]
    assert (weak**2).mean() / weak.mean() ** 2 == pytest.approx(3, abs=0.8)


def test_the_seed_fixes_the_structure_factors():
    first, again, other = (
        draw_structure_factors(find_sample("nuclease"), min_d_angstrom=4, seed=s) for s in (5, 5, 6)
    )
    np.testing.assert_array_equal(first.intensity, again.intensity)
    assert not np.array_equal(first.intensity, other.intensity)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_rotations_are_proper(seed):
    rotation = draw_rotation(np.random.default_rng(seed))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_rotations_are_uniform():
    generator = np.random.default_rng(0)
    rotations = np.stack([draw_rotation(generator) for _ in range(4000)])
    # A turned axis is uniform on the sphere, z in [-1, 1]; the rotation angle θ has density (1 - cos θ)/π.
    z = np.sort(rotations[:, 2, 2])
    assert np.abs(z - np.linspace(-1, 1, len(z))).max() < 2 * 1.95 / np.sqrt(len(z))
    angle = np.sort(np.arccos((np.trace(rotations, axis1=1, axis2=2) - 1) / 2))
    cumulative = (angle - np.sin(angle)) / np.pi
    assert np.abs(cumulative - np.linspace(0, 1, len(angle))).max() < 1.95 / np.sqrt(len(angle))


@pytest.mark.parametrize("name", list(SAMPLES))
def test_every_sample_has_a_cell_that_obeys_its_space_group(name):
    sample = find_sample(name)
    assert sample.cell.centering == sample.space_group[0]


def test_a_cell_against_its_space_group_is_refused():
    with pytest.raises(CellError, match="does not obey"):
        make_sample("wrong", "P 43 21 2", 79.1, 60.0, 37.9)


def test_an_unknown_space_group_is_refused():
    with pytest.raises(CellError, match="unknown space group"):
        make_sample("wrong", "P 99", 79.1, 79.1, 37.9)


def test_too_many_reflections_are_refused_with_a_remedy():
    huge = make_sample("huge", "P 1", 500.0, 500.0, 500.0, 90.0, 90.0, 90.0)
    with pytest.raises(CellError, match="resolution_limit_angstrom"):
        draw_structure_factors(huge, min_d_angstrom=1.5, seed=1)
