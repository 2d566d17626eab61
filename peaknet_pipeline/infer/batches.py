"""Which frames go together: stretches of a run, cut into batches."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from peaknet_pipeline.errors import StreamError

Stretch = tuple[int, int]
"""First frame, and the one after the last."""


class Batches:
    """Stretches of a run, cut into batches of at most ``size`` frames, numbered in frame order.

    Raises
    ------
    StreamError
        The stretches are not in ascending order within the run's ``n_frames``.

    """

    def __init__(self, stretches: Sequence[Stretch], size: int, *, n_frames: int) -> None:
        bounds = [0, *(bound for stretch in stretches for bound in stretch), n_frames]
        if bounds != sorted(bounds):
            told = ", ".join(f"{first} … {stop}" for first, stop in stretches)
            raise StreamError("no such frames", expected=f"within 0 … {n_frames}, ascending", found=told)
        self.stretches = tuple(stretches)
        self.size = size

    @property
    def n_frames(self) -> int:
        """Frames in all batches."""
        return sum(stop - first for first, stop in self.stretches)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(-(-(stop - first) // self.size) for first, stop in self.stretches))

    def __len__(self) -> int:
        """Return the number of batches."""
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Stretch]:
        """Go through the batches' frames."""
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Stretch:
        """Return a batch's frames; IndexError if there is no such batch."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        place = bisect_right(self._ends, number)
        first, stop = self.stretches[place]
        first += self.size * (number - (self._ends[place - 1] if place else 0))
        return first, min(first + self.size, stop)
