"""A live stream's figures in Prometheus's text format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from peaknet_pipeline.infer.live_figures import LiveFigures


def metrics_text(figures: LiveFigures) -> bytes:
    """Return the figures in Prometheus's text exposition format; what is not measured is left out."""
    registry = CollectorRegistry()
    registry.register(_Figures(figures))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, figures: LiveFigures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the figures."""
        now = self._figures
        for name, meaning, count in (
            ("frames", "Frames processed.", now.frames),
            ("hits", "Frames with enough peaks.", now.hits),
            ("indexed", "Hits that index.", now.indexed),
            ("peaks", "Peaks found.", now.peaks),
            ("refused", "Messages, files and frames that could not be used.", now.refused),
        ):
            if count is not None:
                yield CounterMetricFamily(f"peaknet_{name}", meaning, value=count)
        indexing_rate = None if now.indexed is None else now.indexing_rate
        for name, meaning, value in (
            ("hit_rate", "Hits / frames.", now.hit_rate),
            ("indexing_rate", "Indexed / hits.", indexing_rate),
            ("frames_per_second", "Frames per second over the last seconds.", now.frames_per_second),
            ("waiting_frames", "Frames in the followed file that are not taken yet.", now.waiting),
        ):
            if value is not None:
                yield GaugeMetricFamily(f"peaknet_{name}", meaning, value=value)
        meaning = "From the frame's time to its written peaks, recent frames."
        latency = GaugeMetricFamily("peaknet_latency_seconds", meaning, labels=["quantile"])
        latency.add_metric(["0.5"], now.latency_p50_s)
        latency.add_metric(["0.99"], now.latency_p99_s)
        yield latency
