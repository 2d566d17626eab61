"""Everything that a GPU does here, in one call: is it the CPU's result, and how fast is it?

Needs torch, Triton, numba, numpy, h5py, pandas, pyarrow, scipy and safetensors; a machine without Dagster, Ray, lmfit and
click calls ``python -m peaknet_pipeline.bench.gpu``. Every part is a process of its own with its own time: one that fails, or
is ended for its time, leaves the others their figures.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import ParameterError, PeaknetError

MODULE = "peaknet_pipeline.bench.gpu"


@dataclass(frozen=True)
class Part:
    """How long a part may take, and what its main figure should be."""

    budget_s: float
    goal: str = ""


PARTS = {
    "parity": Part(150, "every share at its bar"),
    "peakfinder8": Part(70, "≤ 0.3 ms a frame of 4.2 Mpix"),
    "network": Part(90, "≥ 2,000 frames/s"),
    "atto": Part(80, "≥ 1,000 frames/s"),
    "teacher": Part(60),
    "fit": Part(40),
    "index": Part(60, "≥ 5,000 frames/s"),
    "second_look": Part(40),
    "stream": Part(60, "≥ 90 % of the slowest stage"),
}
"""The parts in their order; `gpu_parts` measures them. The first ones of a machine compile for those that follow."""
SHOWN_LINES, SLACK = 6, 5
"""Last lines of a failed part's output; how much longer a part may take on a CPU, which may be a busy one."""


def run(
    parts: str = "", minutes: float = 9.0, device: str = "auto", small: bool = False, out: str = ""
) -> dict[str, Any]:
    """Measure on the GPU, or on the CPU where there is none (then ``small=true``).

    Parameters
    ----------
    parts : str
        Comma-separated; all by default.
    minutes : float
        All parts together end by then; each has its own share.
    device : str
    small : bool
        A size that a CPU bears.
    out : str
        Writes ``OUT.json`` and ``OUT.md``.

    Raises
    ------
    ParameterError
        No such part.

    """
    chosen = [name for name in parts.split(",") if name] or list(PARTS)
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        raise ParameterError("no such part", where="bench gpu", expected=", ".join(PARTS), found=unknown)
    until = time.monotonic() + 60.0 * minutes
    started = time.time()
    figures: dict[str, Any] = {"started": time.strftime("%Y-%m-%d %H:%M", time.localtime(started))}
    for name in chosen:
        part = PARTS[name]
        share = part.budget_s * (SLACK if small else 1)
        limit = min(share, until - time.monotonic())
        figures[name] = {"goal": part.goal} | _apart(name, device, small, limit)
    figures["seconds"] = round(time.time() - started, 1)
    if out:
        Path(f"{out}.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False), encoding="utf-8")
        Path(f"{out}.md").write_text(markdown(figures), encoding="utf-8")
    return figures


def measure(name: str, device: str, small: bool) -> dict[str, Any]:
    """Measure one part in this process."""
    from peaknet_pipeline.bench.gpu_meter import Meter
    from peaknet_pipeline.bench.gpu_parts import MEASURES, SMALL, Size

    size = SMALL if small else Size()
    meter = Meter.on(device, size.repeats)
    limits = {
        "tflop_per_second": float(f"{meter.flop_per_second / 1e12:.4g}"),
        "tbytes_per_second": float(f"{meter.bytes_per_second / 1e12:.4g}"),
    }
    return {"device": meter.name, "limits": limits, "figures": MEASURES[name](meter, size)}


def _apart(name: str, device: str, small: bool, limit_s: float) -> dict[str, Any]:
    """Measure a part in another process; what went wrong there stands in the place of its figures."""
    if limit_s <= 0:
        return {"error": "not begun: the time was over"}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", MODULE, "--part", name, device, str(int(small)), str(result)]
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, this module
                command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return {"error": f"ended after its {limit_s:.0f} s"}
        if code or not result.is_file():
            last = log.read_text(errors="replace").strip().splitlines()[-SHOWN_LINES:]
            return {"error": f"ended with {code}: " + " | ".join(last)}
        figures: dict[str, Any] = json.loads(result.read_text())
    return figures | {"seconds": round(time.monotonic() - started, 1)}


def markdown(figures: Mapping[str, Any]) -> str:
    """Return the figures as a table: a row for each thing that was measured."""
    lines = ["| part | what | figure | goal |", "|---|---|---|---|"]
    for name, part in figures.items():
        if not isinstance(part, dict):
            continue
        rows = part.get("figures", {"": {"failed": part.get("error")}})
        for what, values in rows.items():
            told = ", ".join(f"{key} {value}" for key, value in values.items())
            lines.append(f"| {name} | {what} | {told} | {part['goal']} |".replace("\n", " "))
    devices = {part["device"] for part in figures.values() if isinstance(part, dict) and "device" in part}
    return "\n".join([f"{figures['started']}, {', '.join(sorted(devices)) or 'no device'}", "", *lines, ""])


def main(arguments: list[str]) -> None:
    """Run with ``NAME=VALUE`` settings and print the table; ``--part`` is for this module's own processes."""
    from peaknet_pipeline.bench.registry import call

    if arguments[:1] == ["--part"]:
        name, device, small, result = arguments[1:]
        Path(result).write_text(json.dumps(measure(name, device, small == "1")), encoding="utf-8")
        return
    try:
        sys.stdout.write(markdown(call("gpu", run, arguments)))
    except PeaknetError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
