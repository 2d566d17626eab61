"""Which frames were taken already, whatever the order in which they came."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from peaknet_pipeline.infer.batches import Stretch
from peaknet_pipeline.types import IntArray


class FrameNumbers:
    """A growing set of frame numbers; it keeps stretches, so that millions of neighbours take no room."""

    def __init__(self, numbers: Iterable[int] | IntArray = ()) -> None:
        # First frame and end of each stretch in turn, ascending: an odd place is inside of one.
        self._bounds: list[int] = []
        for number in numbers:
            self.add(int(number))

    def __contains__(self, number: int) -> bool:
        """Tell whether a number was taken."""
        return bisect_right(self._bounds, number) % 2 == 1

    def __len__(self) -> int:
        """Return how many numbers were taken."""
        return sum(self._bounds[1::2]) - sum(self._bounds[::2])

    def add(self, number: int) -> bool:
        """Take a number; return False if it was taken before."""
        bounds, place = self._bounds, bisect_right(self._bounds, number)
        if place % 2:
            return False
        follows = place > 0 and bounds[place - 1] == number
        precedes = place < len(bounds) and bounds[place] == number + 1
        if follows and precedes:
            del bounds[place - 1 : place + 1]
        elif follows:
            bounds[place - 1] += 1
        elif precedes:
            bounds[place] -= 1
        else:
            bounds[place:place] = [number, number + 1]
        return True

    def gaps(self, first: int, stop: int) -> Iterator[Stretch]:
        """Yield the stretches between ``first`` and ``stop`` that were not taken."""
        place = bisect_right(self._bounds, first)
        start = first if place % 2 == 0 else self._bounds[place]
        inner = [bound for bound in self._bounds[place + place % 2 :] if bound < stop]
        bounds = [start, *inner] if len(inner) % 2 else [start, *inner, stop]
        yield from ((a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=True) if a < b)
