"""The call for the GPU: every part runs, at a size that a CPU bears, also where only the numerical libraries are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from peaknet_pipeline.bench import gpu
from peaknet_pipeline.errors import ParameterError

ABSENT = [
    "click",
    "dagster",
    "hdf5plugin",
    "hypothesis",
    "lmfit",
    "matplotlib",
    "prometheus_client",
    "ray",
    "yaml",
    "zarr",
]
"""What a bare GPU machine doesn't have."""

BARE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.mark.parametrize("name", [n for n in gpu.PARTS if n not in ("atto", "teacher", "parity")])
def test_a_part_measures_a_time_and_a_rate(name: str) -> None:
    result = gpu.measure(name, "cpu", True)
    assert result["device"] == "cpu"
    assert result["limits"]["tflop_per_second"] > 0
    assert result["figures"]
    for values in result["figures"].values():
        assert values["per_second"] > 0


def test_the_cpu_agrees_with_itself_by_both_ways() -> None:
    for name, one in gpu.measure("parity", "cpu", True)["figures"].items():
        assert one["met"], (name, one)


def test_it_runs_with_the_numerical_libraries_alone(tmp_path: Path) -> None:
    """Also the processes that it starts, and without the filters that most HDF5 files need."""
    (tmp_path / "sitecustomize.py").write_text(BARE)
    paths = [str(tmp_path), str(Path(gpu.__file__).parents[2])]
    done = subprocess.run(
        [sys.executable, "-m", gpu.MODULE, "small=true", "parts=fit,stream", f"out={tmp_path / 'gpu'}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "gpu.json").read_text())
    assert "60 fits" in figures["fit"]["figures"]
    (streamed,) = figures["stream"]["figures"].values()
    assert streamed["stored_as"] == "uncompressed"
    assert (tmp_path / "gpu.md").read_text() == done.stdout


def test_a_part_that_fails_or_is_late_leaves_the_others_alone(tmp_path: Path) -> None:
    figures = gpu.run(parts="fit", device="abacus", small=True)
    assert "no such device" in figures["fit"]["error"]
    late = gpu.run(parts="fit,index", minutes=0.005, small=True)
    assert late["fit"]["error"].startswith("ended after its")
    assert late["index"]["error"].startswith("not begun")
    assert "| fit |  | failed ended after" in gpu.markdown(late)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ParameterError, match="no such part"):
        gpu.run(parts="fits")


def test_every_part_has_a_measure() -> None:
    from peaknet_pipeline.bench.gpu_parts import MEASURES

    assert list(MEASURES) == list(gpu.PARTS)
