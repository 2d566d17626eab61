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


class Ending:
    """Passes a source's frames on until it ends by itself, by hand or by an error; the error waits in ``failure``.

    What came before an error is still found and written.
    """

    def __init__(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        self._stop, self._say = stop, say
        self.failure: Exception | None = None

    def until(self, arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
        """Yield the frames."""
        try:
            yield from arrivals
        except Exception as error:
            self.failure = error
            return
        if self._stop.is_set():
            self._say("ended by hand: what has arrived is still found and written (once more gives up)")
