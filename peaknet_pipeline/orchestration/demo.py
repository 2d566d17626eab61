"""The demo: a small simulated experiment through every asset of the chain, in the embedded instance."""

from collections.abc import Callable

from peaknet_pipeline.orchestration.jobs import INFER, INGEST, SUMMARY, TRAIN
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.orchestration.run_chain import Say, Turn, make, open_chain
from peaknet_pipeline.stages.demo import demo_runs, prepare_demo
from peaknet_pipeline.store import asset
from peaknet_pipeline.store.layout import Store


def run_demo(store: Store, *, say: Say, ingested: Callable[[list[str]], None]) -> None:
    """Simulate what is missing, then materialize what is not current.

    ``ingested`` is called with the runs' keys when all are found and indexed classically, before a network learns.

    Raises
    ------
    PeaknetError
        An asset failed; the Dagster run tells the whole story.

    """
    prepare_demo(store, say=say)
    chain, keys = open_chain(store), demo_runs()
    register_runs(chain.instance, keys)
    for key in keys:
        make(chain, Turn(asset.INGEST, INGEST, key), say=say, every_stage=False)
    ingested(keys)
    make(chain, Turn(asset.IMPROVE, TRAIN), say=say, every_stage=False)
    for key in keys:
        make(chain, Turn(asset.INFER, INFER, key), say=say, every_stage=False)
    make(chain, Turn(asset.SUMMARIZE, SUMMARY), say=say, every_stage=False)
