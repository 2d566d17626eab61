"""Operation with many runs: what is measured is what was made, and one server has an instance."""

import pytest

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.orchestration import scale
from peaknet_pipeline.orchestration.instance import claim_instance
from peaknet_pipeline.store.layout import Store


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_the_benchmark_measures_what_it_made(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "measure_queries", lambda store: {})  # a server of its own is slow to start
    figures = scale.run(runs=150, materialized=12, new=25, folder=str(tmp_path))
    assert figures["sensor_found"] == 20  # the cap of a tick
    assert figures["summary_runs"] == 12
    assert figures["sensor_tick_s"] < 5
    assert figures["summary_s"] < 30
    assert figures["report_mb"] < 1


def test_a_second_server_on_the_same_instance_is_refused_and_told_of_the_first(tmp_path):
    claim_instance(Store(tmp_path), "http://127.0.0.1:3000")
    with pytest.raises(ParameterError, match=r"another server.*http://127\.0\.0\.1:3000 \(process \d+\)"):
        claim_instance(Store(tmp_path), "http://127.0.0.1:3001")
