"""The first Ctrl-C or SIGTERM ends a live stream in order; the second one gives up."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from peaknet_pipeline.infer.arrivals import Arrival


@contextmanager
def ending_gently() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C or SIGTERM within the block sets; the next one interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def told_end(
    arrivals: Iterator[Arrival], stop: threading.Event, say: Callable[[str], None]
) -> Iterator[Arrival]:
    """Pass arrivals on; tell when they were ended by hand."""
    yield from arrivals
    if stop.is_set():
        say("ended by hand: what has arrived is still found and written (once more gives up)")
