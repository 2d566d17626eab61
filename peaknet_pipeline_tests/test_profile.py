"""The spot profile: half widths, and stamps that are exactly the pixels at half maximum."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.profile import (
    HALF_WIDTH_PER_SIGMA,
    profile_half_widths,
    profile_model,
    profile_shape,
    stamp_half_maximum,
)


def make_profile(ss=10.0, fs=12.0, sigma=(1.0, 1.5), gamma=(1.2, 0.8), eta=0.4):
    return np.array([50.0, ss, fs, *sigma, *gamma, eta, 0.1, -0.2, 7.0])


def test_half_width_of_a_pure_gaussian_and_a_pure_lorentzian():
    gauss, lorentz = make_profile(eta=0.0), make_profile(eta=1.0)
    assert profile_half_widths(gauss)[0] == pytest.approx([HALF_WIDTH_PER_SIGMA, 1.5 * HALF_WIDTH_PER_SIGMA])
    assert profile_half_widths(lorentz)[0] == pytest.approx([1.2, 0.8])


@settings(max_examples=40, deadline=None)
@given(eta=st.floats(0, 1), sigma=st.floats(0.3, 4), gamma=st.floats(0.3, 4))
def test_the_profile_is_one_half_at_its_half_width(eta, sigma, gamma):
    profile = make_profile(sigma=(sigma, sigma), gamma=(gamma, gamma), eta=eta)
    half = profile_half_widths(profile)[0]
    assert profile_shape(profile, np.array([10.0 + half[0]]), np.array([12.0]))[0] == pytest.approx(
        0.5, abs=1e-6
    )


def test_model_is_height_plus_plane_at_the_centre():
    value = profile_model(make_profile(), np.array([10.0]), np.array([12.0]), origin=(8.0, 9.0))[0]
    assert value == pytest.approx(50.0 + 0.1 * 2 - 0.2 * 3 + 7.0)


@settings(max_examples=60, deadline=None)
@given(
    ss=st.floats(-0.5, 24.4),
    fs=st.floats(-0.5, 30.4),
    eta=st.floats(0, 1),
    sigma=st.floats(0.5, 3),
    gamma=st.floats(0.5, 3),
)
def test_a_stamp_is_every_pixel_at_half_maximum_also_at_the_edge(ss, fs, eta, sigma, gamma):
    profile = make_profile(ss, fs, (sigma, 0.8), (gamma, 1.1), eta)
    label = np.zeros((2, 25, 31), dtype=bool)
    stamp_half_maximum(label, np.array([1]), profile[None])
    s, f = np.indices(label.shape[1:]).astype(float)
    expected = profile_shape(profile, s, f) >= 0.5
    near = np.rint([ss, fs]).astype(int)
    if 0 <= near[0] < 25 and 0 <= near[1] < 31:
        expected[near[0], near[1]] = True
    assert not label[0].any()
    np.testing.assert_array_equal(label[1], expected)


def test_stamps_are_ored_whatever_their_order():
    profiles = np.stack([make_profile(10.0, 10.0), make_profile(11.0, 13.0), make_profile(10.5, 11.0)])
    single = []
    for profile in profiles:
        label = np.zeros((1, 25, 31), dtype=bool)
        stamp_half_maximum(label, np.array([0]), profile[None])
        single.append(label)
    for order in ([0, 1, 2], [2, 0, 1]):
        label = np.zeros((1, 25, 31), dtype=bool)
        stamp_half_maximum(label, np.zeros(3, int), profiles[order])
        np.testing.assert_array_equal(label, np.logical_or.reduce(single))


def test_a_spot_narrower_than_a_pixel_marks_the_pixel_it_lies_in():
    label = np.zeros((1, 25, 31), dtype=bool)
    stamp_half_maximum(label, np.array([0]), make_profile(4.5, 6.45, (0.25, 0.25), (0.3, 0.3))[None])
    assert label[0, 4, 6]
    assert label.sum() == 1
