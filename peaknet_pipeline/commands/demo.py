"""The demo: a simulated experiment through the whole chain."""

import time
from pathlib import Path

from peaknet_pipeline.commands.files import command
from peaknet_pipeline.commands.options import NEW_DATA
from peaknet_pipeline.commands.tell import tell


@command()
@NEW_DATA
def demo(data: Path) -> None:
    """Simulate a small experiment and take it through the whole chain, in Dagster."""
    from peaknet_pipeline.orchestration.demo import run_demo
    from peaknet_pipeline.stages.reporting import report_path
    from peaknet_pipeline.stages.run_table import format_runs, run_table
    from peaknet_pipeline.store.layout import Store
    from peaknet_pipeline.store.paths import summary_path
    from peaknet_pipeline.store.scores import format_scores, read_all_scores

    store = Store(data)
    started = time.perf_counter()

    def ingested(keys: list[str]) -> None:
        tell("")
        tell(format_runs(run_table(store, keys)))
        tell("")
        tell(
            f"  The classical finder's rates, after {time.perf_counter() - started:.0f} s. Next a network learns from them."
        )
        tell("")

    run_demo(store, say=tell, ingested=ingested)
    tell("")
    tell(format_scores(read_all_scores(store)))
    tell("")
    tell("  hit rate = hits / frames; indexing rate = indexed hits / hits; yield = indexed / frames;")
    tell("  false index = azimuth-scrambled hits that index. demo-r0005 (test) was never seen in training.")
    tell("")
    tell(f"  tables   {data / 'store'}/*/*.parquet, all runs together {summary_path(store, 'all')}")
    tell(f"  plots    {data / 'store'}/*/plots/*.png")
    tell(f"  report   {report_path(store)}")
    tell(f"  UI       peaknet ui --data {data}")
    tell(f"  done in {time.perf_counter() - started:.0f} s")
