"""The set of frame numbers is a set, and its gaps are what is not in it."""

from hypothesis import given
from hypothesis import strategies as st

from peaknet_pipeline.infer.frame_numbers import FrameNumbers


@given(numbers=st.lists(st.integers(0, 30), max_size=40), first=st.integers(0, 35), n=st.integers(0, 35))
def test_it_is_a_set_that_knows_its_gaps(numbers: list[int], first: int, n: int) -> None:
    taken, known = FrameNumbers(), set()
    for number in numbers:
        assert taken.add(number) == (number not in known)
        known.add(number)
    assert [number in taken for number in range(40)] == [number in known for number in range(40)]
    assert len(taken) == len(known)
    gaps = list(taken.gaps(first, first + n))
    assert [number for gap in gaps for number in range(*gap)] == [
        number for number in range(first, first + n) if number not in known
    ]
    assert all(a < b for a, b in gaps)


def test_neighbours_take_no_room() -> None:
    taken = FrameNumbers(range(0, 2000, 2))
    for number in range(1, 2000, 2):
        taken.add(number)
    assert list(taken.gaps(0, 2001)) == [(2000, 2001)]
    assert len(taken._bounds) == 2
