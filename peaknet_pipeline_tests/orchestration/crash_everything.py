"""Kill every asset of the chain with SIGKILL, at each of its writes and in the middle of its work; by hand, some half an hour.

``python -m peaknet_pipeline_tests.orchestration.crash_everything FOLDER [ASSET …]`` simulates a small experiment in FOLDER,
takes its other runs to their labels and then crashes the chain, or the named assets after it was made, on the first run.
Prints a line of JSON per asset; exits with 1 where a kill left a problem.
"""

import json
import sys
from pathlib import Path

from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.orchestration.instance import open_instance
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline_tests.orchestration.conftest import KEYS, simulate_small
from peaknet_pipeline_tests.orchestration.crash_driver import crash, materialize, preload

PLAN = ["all", "0.3", "0.7"]
TAUGHT = ("raw_run", "run_statistics", "classical_peaks", "found_cell", "classical_index", "peak_labels")
PIPELINE = """\
training_set: {validation_runs: [small-r0002], test_runs: [small-r0003]}
teacher: {scale: edge-small, steps: 30, crops: 64, validation_panels: 8, validate_every: 15}
student: {scale: edge-small, steps: 40, crops: 64, validation_panels: 8, validate_every: 20, repeat_after: 60}
"""


def main(root: Path, assets: list[str]) -> int:
    """Crash the assets; return how many had a problem."""
    if not root.exists():
        simulate_small(root)
        (root / "pipeline.yaml").write_text(PIPELINE)
    preload(root)
    register_runs(open_instance(Store(root)), KEYS)
    for key in KEYS[1:]:
        for asset in TAUGHT:
            materialize(root, asset, key, kill=None)
    bad = 0
    for spec in CHAIN:
        if assets and spec.name not in assets:
            continue
        told = crash(root, spec.name, KEYS[0], PLAN)
        bad += bool(told["problems"])
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
    return bad


if __name__ == "__main__":
    sys.exit(min(1, main(Path(sys.argv[1]).resolve(), sys.argv[2:])))
