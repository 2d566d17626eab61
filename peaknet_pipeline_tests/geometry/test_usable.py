"""Usable values follow CrystFEL's rules for flags, in single precision, for every data type."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peaknet_pipeline.geometry.usable import (
    ALL_VALUES,
    are_usable,
    flag_unusable,
    usable_maximum,
    usable_values,
    value_range,
)
from peaknet_pipeline.types import Geometry

FLAGS = st.none() | st.integers(-300, 300).map(float) | st.floats(-300, 300, width=32)
EDGES = [
    0,
    1,
    2,
    254,
    255,
    32767,
    65534,
    65535,
    2**24 + 1,
    2**31 - 1,
    2**32 - 2,
    2**32 - 1,
    -1,
    -128,
    -(2**15),
    -(2**31),
]
DTYPES = ["uint8", "int8", "uint16", ">u2", "int16", "uint32", "int32", "float16", "float32", "float64"]


def plain_rule(value: np.float32, low: float | None, high: float | None, equal: float | None) -> bool:
    """CrystFEL's words: bad if less than, more than, or equal after rounding."""
    if low is not None and value < low:
        return False
    if high is not None and value > high:
        return False
    return equal is None or np.rint(value) != np.rint(np.float32(equal))


@settings(deadline=None)
@given(
    values=st.lists(st.floats(-400, 400, width=32), min_size=1, max_size=30),
    low=FLAGS,
    high=FLAGS,
    equal=FLAGS,
)
def test_flags_mean_what_crystfel_says(values, low, high, equal):
    halves = [v for f in (low, high, equal) if f is not None for v in (f, f - 0.5, f + 0.5)]
    pixels = np.array([*values, *halves, 0.5, -0.5, 1.5], dtype=np.float32)
    usable = usable_values(Geometry((), flag_less_than=low, flag_more_than=high, flag_equal=equal))
    expected = [plain_rule(v, low, high, equal) for v in pixels]
    assert are_usable(pixels, usable).tolist() == expected
    flagged = flag_unusable(pixels, usable)
    assert (np.zeros(len(pixels), bool) if flagged is None else flagged).tolist() == [not e for e in expected]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("equal", [0, 255, 65535, 2**32 - 1, -(2**31), -9999])
def test_loops_numpy_and_torch_decide_alike(dtype, equal):
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind in "ui" else None
    values = [v for v in EDGES if limits is None or limits.min <= v <= limits.max]
    with np.errstate(over="ignore"):
        frames = np.array(values).astype(kind).reshape(1, 1, 1, -1)
        single = frames.astype(np.float32)
    usable = value_range(-40000, 2**32, equal)
    flagged = flag_unusable(frames, usable)
    expected = ~are_usable(single, usable.of(kind.name)) & np.isfinite(single)
    assert flagged.tolist() == expected.tolist()
    on_torch = ~are_usable(torch.from_numpy(single), usable.of(kind.name)).numpy() & np.isfinite(single)
    assert on_torch.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_the_least_value_of_a_signed_type_is_no_data(dtype):
    least = np.iinfo(dtype).min
    frames = np.array([[least, least + 1000 if dtype == "int32" else least + 1, 0, -5]], dtype=dtype)
    assert flag_unusable(frames, ALL_VALUES).tolist() == [[True, False, False, False]]
    assert flag_unusable(frames.astype(np.float64), ALL_VALUES) is None


def test_without_flags_nothing_is_copied_or_left_out():
    assert usable_values(None) == usable_values(Geometry(())) == ALL_VALUES
    assert flag_unusable(np.zeros((1, 1, 2, 2), np.uint16), ALL_VALUES) is None
    pixels = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38], np.float32)
    assert are_usable(pixels, ALL_VALUES).tolist() == [False, False, False, True, True]


def test_the_highest_usable_value_leaves_marks_out():
    frames = np.array([[7, 65535, 0, 65535], [3, 9, 0, 65535]], np.uint16).reshape(2, 1, 1, 4)
    np.testing.assert_array_equal(
        usable_maximum(frames, value_range(equal=65535)), np.array([[[7, 9, 0, np.nan]]], np.float32)
    )
