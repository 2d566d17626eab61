"""What happened when, in intervals that double in length when they are too many."""

from typing import Any

import numpy as np

from peaknet_pipeline.types import Float64Array

N_INTERVALS = 240
SUMS = ("frames", "hits", "indexed", "latency_s", "inv_d", "with_inv_d")
MAXIMA = ("latency_max_s", "waiting")


class History:
    """Counts, delays and resolutions of a stream by time, from ``start_s`` on; at most ``N_INTERVALS`` intervals."""

    def __init__(self, start_s: float, *, interval_s: float = 1.0) -> None:
        self.start_s, self.interval_s = start_s, interval_s
        self._sums = np.zeros((len(SUMS), N_INTERVALS))
        self._maxima = np.zeros((len(MAXIMA), N_INTERVALS))

    def add(
        self,
        now_s: float,
        *,
        n_frames: int,
        n_hits: int,
        n_indexed: int,
        latencies_s: Float64Array,
        waiting: int,
        inv_d: Float64Array,
    ) -> None:
        """Add a batch that was done at ``now_s``: ``latencies_s`` of its frames, ``inv_d`` (Å⁻¹) that hits reach."""
        place = self._place(now_s)
        latencies_s = latencies_s[np.isfinite(latencies_s)]
        sums = (n_frames, n_hits, n_indexed, latencies_s.sum(), inv_d.sum(), len(inv_d))
        self._sums[:, place] += sums
        maxima = (max(latencies_s.max(initial=0.0), 0.0), waiting)
        self._maxima[:, place] = np.maximum(self._maxima[:, place], maxima)

    def columns(self, now_s: float) -> dict[str, Any]:
        """Return the columns from the start until ``now_s``, as lists; means are None where there is nothing to average."""
        n = self._place(now_s) + 1
        sums = {name: row[:n] for name, row in zip(SUMS, self._sums, strict=True)}
        maxima = {name: row[:n].tolist() for name, row in zip(MAXIMA, self._maxima, strict=True)}
        counts = {name: sums[name].astype(int).tolist() for name in ("frames", "hits", "indexed")}
        means = {
            "latency_mean_s": _ratios(sums["latency_s"], sums["frames"]),
            "inv_d": _ratios(sums["inv_d"], sums["with_inv_d"]),
        }
        return {"interval_s": self.interval_s, **counts, **maxima, **means}

    def _place(self, now_s: float) -> int:
        """Return the number of the interval of a time; pairs become one until there is room for it."""
        elapsed = max(now_s - self.start_s, 0.0)
        while elapsed >= N_INTERVALS * self.interval_s:
            self.interval_s *= 2
            pairs = self._sums.reshape(len(SUMS), -1, 2).sum(axis=2)
            highest = self._maxima.reshape(len(MAXIMA), -1, 2).max(axis=2)
            self._sums, self._maxima = (
                np.pad(half, ((0, 0), (0, N_INTERVALS // 2))) for half in (pairs, highest)
            )
        return int(elapsed / self.interval_s)


def _ratios(above: Float64Array, below: Float64Array) -> list[float | None]:
    return [float(a / b) if b else None for a, b in zip(above, below, strict=True)]
