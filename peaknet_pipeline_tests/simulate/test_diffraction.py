"""Where reflections fall and how strong they are, against an independent reckoning."""

from dataclasses import replace

import numpy as np
import pytest

from peaknet_pipeline.simulate.crystal import draw_structure_factors, reciprocal_axes
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.draw import draw_experiment
from peaknet_pipeline.simulate.ewald import diffract, excite, polarisation_factor
from peaknet_pipeline.simulate.experiment import BeamParameters, CrystalParameters
from peaknet_pipeline.simulate.frames import simulate_frames
from peaknet_pipeline.types import HC_EV_ANGSTROM


def lab_position(panel, fs, ss):
    """Laboratory position in metres of a pixel position, written out for one spot."""
    x = panel.corner_x + (fs + 0.5) * panel.fs_vec[0] + (ss + 0.5) * panel.ss_vec[0]
    y = panel.corner_y + (fs + 0.5) * panel.fs_vec[1] + (ss + 0.5) * panel.ss_vec[1]
    z = (fs + 0.5) * panel.fs_vec[2] + (ss + 0.5) * panel.ss_vec[2]
    return np.array([x * panel.pixel_size_m, y * panel.pixel_size_m, z * panel.pixel_size_m + panel.clen_m])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_listed_reflection_lies_where_its_lattice_says(seed):
    experiment = demo_experiment(seed)
    frames = [f for f in simulate_frames(experiment, 6, seed) if f.axes]
    assert frames
    for frame in frames:
        wavenumber = frame.shot.photon_energy_ev / HC_EV_ANGSTROM
        r = frame.reflections
        for n in range(len(r["fs"])):
            position = lab_position(experiment.geometry.panels[r["panel"][n]], r["fs"][n], r["ss"][n])
            seen = wavenumber * position / np.linalg.norm(position)
            q = r["h"][n] * frame.axes[r["lattice"][n]][0]
            q = q + r["k"][n] * frame.axes[r["lattice"][n]][1] + r["l"][n] * frame.axes[r["lattice"][n]][2]
            meant = q + np.array([0, 0, wavenumber])
            assert np.linalg.norm(np.cross(seen, meant)) / wavenumber**2 < 1e-6
            assert r["inv_d"][n] == pytest.approx(np.linalg.norm(q), rel=1e-5)
            # What is recorded lies near the Ewald sphere.
            assert abs(np.linalg.norm(meant) - wavenumber) < 0.01


def test_turning_the_crystal_about_the_beam_turns_the_spots():
    experiment = draw_experiment(4, detector="rayonix", sample="nuclease")
    factors = draw_structure_factors(experiment.sample, min_d_angstrom=3.0, seed=1)
    axes = (
        reciprocal_axes(experiment.sample.cell)
        @ np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    )
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    still = {
        "photon_energy_ev": 9500.0,
        "beam": BeamParameters(polarisation=0.5),
        "crystal": CrystalParameters(),
        "brightness": 1.0,
    }
    before = diffract(factors, axes, experiment.geometry, **still)
    after = diffract(factors, axes @ quarter.T, experiment.geometry, **still)
    assert len(before.row) > 30
    np.testing.assert_array_equal(before.row, after.row)
    np.testing.assert_allclose(after.fs, 1919 - before.ss, atol=1e-6)
    np.testing.assert_allclose(after.ss, before.fs, atol=1e-6)
    np.testing.assert_allclose(after.photons, before.photons, rtol=1e-9)


def test_the_recorded_fraction_integrates_to_the_same_for_every_width():
    factors = draw_structure_factors(demo_experiment().sample, min_d_angstrom=5.0, seed=1)
    row = int(np.argmax(factors.inv_d))
    one = replace(
        factors,
        hkl=factors.hkl[row : row + 1],
        intensity=factors.intensity[row : row + 1],
        inv_d=factors.inv_d[row : row + 1],
    )
    base = reciprocal_axes(demo_experiment().sample.cell)
    totals = []
    for mosaicity in (5e-4, 2e-3):
        crystal = CrystalParameters(mosaicity_rad=mosaicity, size_angstrom=1e6)
        beam = BeamParameters(bandwidth=0.0, divergence_rad=0.0)
        total = 0.0
        for angle in np.arange(-0.2, 0.6, 2e-5):
            c, s = np.cos(angle), np.sin(angle)
            turned = base @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T
            fraction = excite(one, turned, photon_energy_ev=9500.0, beam=beam, crystal=crystal)[3]
            total += fraction.sum() / (mosaicity * 0.25)
        totals.append(total)
    assert totals[0] > 0
    assert totals[1] == pytest.approx(totals[0], rel=0.02)


def test_horizontal_polarisation_dims_the_horizontal_plane_only():
    two_theta = np.deg2rad(40)
    horizontal = np.array([[np.sin(two_theta), 0, np.cos(two_theta)]])
    vertical = np.array([[0, np.sin(two_theta), np.cos(two_theta)]])
    assert polarisation_factor(horizontal, 1.0)[0] == pytest.approx(np.cos(two_theta) ** 2)
    assert polarisation_factor(vertical, 1.0)[0] == pytest.approx(1.0)
    assert polarisation_factor(horizontal, 0.5)[0] == pytest.approx((1 + np.cos(two_theta) ** 2) / 2)


def test_a_larger_b_factor_dims_fine_spacings_by_wilsons_exponent():
    experiment = demo_experiment()
    factors = draw_structure_factors(experiment.sample, min_d_angstrom=2.3, seed=1)
    axes = reciprocal_axes(experiment.sample.cell)
    spots = [
        diffract(
            factors, axes, experiment.geometry, photon_energy_ev=9500.0, beam=experiment.beam,
            crystal=replace(experiment.crystal, b_factor=b), brightness=1.0,
        )
        for b in (20.0, 35.0)
    ]  # fmt: skip
    measured = -2 * np.log(spots[1].photons / spots[0].photons) / (spots[0].inv_d ** 2 - 0.25**2)
    np.testing.assert_allclose(measured, 15.0, rtol=1e-6)
