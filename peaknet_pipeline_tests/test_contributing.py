"""The examples of the contributing page work: a finder and an asset are added by touching two files each."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import peaknet_pipeline
from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run

PACKAGE = Path(peaknet_pipeline.__file__).parent
PAGE = PACKAGE / "docs" / "contributing.md"
USE = """
import sys
from pathlib import Path
import peaknet_pipeline as pn
from peaknet_pipeline.orchestration.build import build_defs
from peaknet_pipeline.orchestration.jobs import INGEST
from peaknet_pipeline.stages.classical_peaks import classical_peaks
from peaknet_pipeline.stages.peak_counts import PEAK_COUNTS_ASSET
from peaknet_pipeline.stages.raw_run import raw_run
from peaknet_pipeline.stages.run_statistics import run_statistics
from peaknet_pipeline.store.layout import Store

store, key = Store(Path(sys.argv[1])), "small-r0001"
for stage in (raw_run, run_statistics, classical_peaks, PEAK_COUNTS_ASSET.run):
    result = stage(store, key)
folder = store.raw_root / "small"
with pn.open_run(folder / "r0001.h5", folder / "small.geom") as run:
    peaks = pn.find(run, "brightest", limit=150, bad_pixels=pn.mask(run))
assert len(peaks) > 10 and (peaks["max_intensity"] >= 150).all()
assert result.figures["frames_with_peaks"] == peaks["frame"].nunique()
assert PEAK_COUNTS_ASSET.path(store, key).is_file() and all(check.passed for check in result.checks)
assert "peak_counts" in INGEST
assert {key.to_user_string() for key in build_defs(sys.argv[1]).resolve_asset_graph().get_all_asset_keys()} >= {"peak_counts"}
"""


def blocks(language):
    """Return the page's code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def change(path, diff):
    """Apply a diff of whole lines: what is taken out is replaced, what is added goes beside the line that it stands by."""
    text = path.read_text(encoding="utf-8")
    lines = diff.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("+"):
            continue
        beside = lines[number - 1] if number else ""
        if beside.startswith("-"):
            old, new = beside[1:] + "\n", line[1:] + "\n"
        elif beside.startswith(" "):
            old, new = beside[1:] + "\n", f"{beside[1:]}\n{line[1:]}\n"
        else:
            old, new = lines[number + 1][1:] + "\n", f"{line[1:]}\n{lines[number + 1][1:]}\n"
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def changed(tmp_path):
    """A copy of the package with the page's new finder and asset."""
    copy = tmp_path / "code" / "peaknet_pipeline"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("docs", "__pycache__"))
    files = [block for block in blocks("python") if block.startswith("# peaknet_pipeline/")]
    for block in files:
        path = copy.parent / block.partition("\n")[0][2:]
        assert not path.exists()
        path.write_text(block, encoding="utf-8")
    finder, asset = blocks("diff")
    change(copy / "peaks" / "classical.py", finder)
    change(copy / "orchestration" / "chain.py", asset)
    assert len(files) == 2
    return copy.parent


def test_a_finder_and_an_asset_take_two_files_each(changed, tmp_path):
    root = tmp_path / "data"
    experiment = demo_experiment(7, name="small")
    write_experiment_files(experiment, root / "raw" / "small")
    simulate_run(experiment, root / "raw" / "small" / "r0001.h5", n_frames=4, seed=35, run_number=1)
    settings = "classical_finder: brightest\nbrightest: {limit: 150}\n"
    (root / "raw" / "small" / "experiment.yaml").write_text(settings)
    environment = os.environ | {"PYTHONPATH": str(changed)}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(root)], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    told = subprocess.run(
        [sys.executable, "-m", "peaknet_pipeline.cli", "find", "--help"],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=True,
    )  # fmt: skip
    assert "[peakfinder8|droplet|brightest|peaknet]" in told.stdout
