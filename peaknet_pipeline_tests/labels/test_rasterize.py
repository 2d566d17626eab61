"""Label maps: precedence, edges, saturated and bad pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.labels.rasterize import Positions, find_saturated, rasterize_labels
from peaknet_pipeline.types import LABEL_BACKGROUND, LABEL_IGNORE, LABEL_PEAK

SHAPE = (2, 40, 50)
GOOD = np.zeros(SHAPE, bool)


def make_profile(ss, fs, width=1.2):
    return np.array([100.0, ss, fs, width, width, width, width, 0.3, 0.0, 0.0, 5.0])


def make_positions(panel, ss, fs, radius=3.0):
    return Positions(np.array([panel]), np.array([ss], float), np.array([fs], float), radius)


def test_a_doubtful_neighbour_does_not_erase_a_good_peak():
    alone = rasterize_labels(SHAPE, [0], make_profile(20, 20)[None], bad_pixels=GOOD)
    both = rasterize_labels(
        SHAPE, [0], make_profile(20, 20)[None], ignore=(make_positions(0, 21, 22),), bad_pixels=GOOD
    )
    assert (both[alone == LABEL_PEAK] == LABEL_PEAK).all()
    assert (both == LABEL_IGNORE).any()


def test_bad_and_saturated_pixels_teach_nothing_even_inside_a_peak():
    bad, saturated = GOOD.copy(), GOOD.copy()
    bad[0, 20, 20], saturated[0, 20, 21], bad[1, 3, 4] = True, True, True
    labels = rasterize_labels(SHAPE, [0], make_profile(20, 20)[None], bad_pixels=bad | saturated)
    assert labels[0, 20, 20] == labels[0, 20, 21] == labels[1, 3, 4] == LABEL_IGNORE
    assert labels[0, 21, 20] == LABEL_PEAK


def test_a_disc_covers_exactly_the_pixels_within_its_radius():
    labels = rasterize_labels(
        SHAPE, [], np.empty((0, 11)), ignore=(make_positions(1, 0.4, 48.7, 3.5),), bad_pixels=GOOD
    )
    ss, fs = np.indices(SHAPE[1:])
    np.testing.assert_array_equal(labels[1] == LABEL_IGNORE, np.hypot(ss - 0.4, fs - 48.7) <= 3.5)
    assert (labels[0] == LABEL_BACKGROUND).all()


@settings(max_examples=40, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=10, unique=True))
def test_rasterize_then_decode_gives_the_spots_back(places):
    from scipy import ndimage

    profiles = np.stack([make_profile(5 + 10 * i + 0.3, 5 + 9 * j - 0.2) for i, j in places])
    labels = rasterize_labels(SHAPE, np.zeros(len(places), int), profiles, bad_pixels=GOOD)
    groups, n = ndimage.label(labels[0] == LABEL_PEAK, structure=np.ones((3, 3)))
    assert n == len(places)
    centres = np.array(ndimage.center_of_mass(groups > 0, groups, range(1, n + 1)))
    distance = np.hypot(*(centres[:, None] - profiles[None, :, 1:3]).transpose(2, 0, 1))
    assert (distance.min(axis=1) < 0.5).all()
    assert len(set(distance.argmin(axis=1))) == n


def test_saturation_is_at_or_above_the_value():
    frame = np.array([[[10, 20, 30]]], np.uint16)
    np.testing.assert_array_equal(find_saturated(frame, 20.0), [[[False, True, True]]])
    assert find_saturated(frame, None) is None


@pytest.mark.parametrize(
    ("panel", "profiles", "bad", "message"),
    [
        ([2], make_profile(5, 5)[None], GOOD, "no such panel"),
        ([0], make_profile(np.nan, 5)[None], GOOD, "must be finite"),
        ([0, 1], make_profile(5, 5)[None], GOOD, "one row per panel"),
        ([0], make_profile(5, 5)[None], GOOD[:1], "another shape"),
    ],
)
def test_what_does_not_fit_the_stack_is_refused(panel, profiles, bad, message):
    with pytest.raises(LabelError, match=message):
        rasterize_labels(SHAPE, panel, profiles, bad_pixels=bad)
