"""Progress bars for a person at a terminal; silent where nobody looks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from peaknet_pipeline.errors import printable

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@contextmanager
def progress_bar(label: str, *, unit: str = "frame") -> Iterator[Progress]:
    """Give a callback that draws a bar on a terminal and nothing elsewhere."""
    with tqdm(
        desc=printable(f"    {label}"), unit=unit, disable=None, leave=False, delay=0.5, mininterval=0.2
    ) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance


@contextmanager
def counting_bar(label: str, total: int, *, unit: str = "frame") -> Iterator[Callable[[int], None]]:
    """Give a callback that is told how many were done since it was last called."""
    done = 0
    with progress_bar(label, unit=unit) as bar:

        def count(step: int) -> None:
            nonlocal done
            done += step
            bar(done, total)

        yield count
