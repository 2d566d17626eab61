"""Bounded queues between threads, with an explicit end and one stop for all."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
ReadyCheck = Callable[[], bool]


class StreamStopped(Exception):  # noqa: N818
    """Raised in every thread that waits on a channel when another thread has failed."""


class StopSignal:
    """The first exception of a stream; once set, everything that waits wakes up."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._waiting: list[threading.Condition] = []

    def watch(self, condition: threading.Condition) -> None:
        """Wake ``condition`` when the stream is stopped."""
        with self._lock:
            self._waiting.append(condition)

    def stop(self, error: BaseException) -> None:
        """Stop the stream; the first error is kept."""
        with self._lock:
            if self.error is None:
                self.error = error
            waiting = list(self._waiting)
        for condition in waiting:
            with condition:
                condition.notify_all()

    def check(self) -> None:
        """Raise StreamStopped once the stream is stopped."""
        if self.error is not None:
            raise StreamStopped


class Channel(Generic[T]):
    """A queue of at most ``capacity`` items that ends when each of its producers has said so.

    An empty queue never means the end: a consumer waits until there is an item or every producer has called
    :meth:`close`.
    """

    def __init__(self, capacity: int, n_producers: int, stop: StopSignal) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._open_producers = n_producers
        self._changed = threading.Condition()
        self._stop = stop
        stop.watch(self._changed)

    def put(self, item: T) -> float:
        """Add an item once there is room; return the seconds waited. StreamStopped if the stream fails."""
        with self._changed:
            waited = self._wait(lambda: len(self._items) < self._capacity)
            self._items.append(item)
            self._changed.notify_all()
        return waited

    def get(self, timeout_s: float | None = None) -> tuple[T | None, float]:
        """Take the oldest item, or None after the end; also return the seconds waited.

        TimeoutError if there is neither an item nor the end within ``timeout_s`` seconds.
        """
        with self._changed:
            waited = self._wait(lambda: bool(self._items) or self._open_producers == 0, timeout_s)
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
        return item, waited

    def close(self) -> None:
        """Tell that one producer has put its last item."""
        with self._changed:
            self._open_producers -= 1
            self._changed.notify_all()

    def _wait(self, ready: ReadyCheck, timeout_s: float | None = None) -> float:
        started = time.perf_counter()
        is_ready = self._changed.wait_for(lambda: self._stop.error is not None or ready(), timeout_s)
        self._stop.check()
        if not is_ready:
            raise TimeoutError
        return time.perf_counter() - started


class Window:
    """Lets at most ``size`` batches be under way: batch b starts once batch b − size is done."""

    def __init__(self, size: int, n_batches: int, stop: StopSignal) -> None:
        self._size, self._n_batches = size, n_batches
        self._next, self._done = 0, 0
        self._changed = threading.Condition()
        self._stop = stop
        stop.watch(self._changed)

    def take(self) -> tuple[int | None, float]:
        """Return the next batch's number, None after the last, and the seconds waited."""
        started = time.perf_counter()
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._stop.error is not None
                    or self._next >= self._n_batches
                    or self._next < self._done + self._size
                )
            )
            self._stop.check()
            waited = time.perf_counter() - started
            if self._next >= self._n_batches:
                return None, waited
            self._next += 1
            return self._next - 1, waited

    def finish(self) -> None:
        """Tell that the oldest batch is done."""
        with self._changed:
            self._done += 1
            self._changed.notify_all()
