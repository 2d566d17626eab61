"""Fill the disk under ``peaknet find``, ``index`` and ``stream`` at random places, and look at what they say and leave.

``python -m peaknet_pipeline_tests.commands.full_disk TIMES [SEED]``

The disk is full as soon as a file grows beyond a limit that is drawn anew each time. A line of JSON for each command tells how
often it was stopped, and each time that it ended in another way than with one line and exit status 2, left anything but
parts to go on from, or did not write, with the disk free again, what it writes undisturbed.
"""

import json
import random
import resource
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from peaknet_pipeline.simulate.demo import demo_experiment
from peaknet_pipeline.simulate.files import write_experiment_files
from peaknet_pipeline.simulate.run import simulate_run
from peaknet_pipeline_tests.commands.kill_driver import FORKED, PRELOADED, ended, run_command

N_FRAMES = 6
SMALLEST = 4096
"""Bytes that a file may always have: what the command says goes to a file too."""

Commands = dict[str, tuple[list[str], list[str]]]
"""Each command's arguments, ``{out}`` for the folder of its outputs, and the tables that it writes."""


def commands_on(folder: Path) -> Commands:
    """Simulate a run and return commands on it; the peaks to index are found at once."""
    experiment = demo_experiment(2)
    geometry, cell = write_experiment_files(experiment, folder / "set")
    (folder / "raw").mkdir()
    run = simulate_run(experiment, folder / "raw" / "r1.h5", n_frames=N_FRAMES, seed=4)
    on = ["--geometry", str(geometry)]
    found = folder / "found.parquet"
    run_limited(["find", str(run), *on, "--out", str(found)], folder / "log", None)
    live = ["--finder", "peakfinder8", "--set", "idle_s=0.5", "--set", "settle_s=0", "--set", "part_s=0.1"]
    live += ["--set", "batch_frames=1"]
    images = ["--out", "{out}/p.parquet", "--cxi", "{out}/p.cxi"]
    lattices = ["--out", "{out}/l.parquet", "--stream", "{out}/l.stream"]
    return {
        "find classical": (["find", str(run), *on, *images, "--images"], ["p.parquet"]),
        "find neural": (
            ["find", str(run), *on, "--finder", "peaknet", *images, "--segmentation", "{out}/m.h5"],
            ["p.parquet"],
        ),
        "index": (["index", str(found), *on, "--cell", str(cell), *lattices], ["l.parquet"]),
        "stream": (["stream", str(folder / "raw"), *on, *live, *images], ["p.parquet"]),
    }


def run_limited(arguments: list[str], log: Path, limit: int | None) -> int:
    """Run a command whose files may not grow beyond a limit of bytes; return its exit status."""
    FORKED.set_forkserver_preload(list(PRELOADED))
    process = FORKED.Process(target=limited_command, args=(arguments, log, limit))
    process.start()
    return ended(process)


def limited_command(arguments: list[str], log: Path, limit: int | None) -> None:
    """Be the command."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run_command(arguments, log)


def problems_of(command: str, folder: Path, commands: Commands, limit: int) -> tuple[bool, list[str]]:
    """Run a command on a full disk and on a free one; return whether it was stopped, and what was wrong."""
    told, tables = commands[command]
    out = folder / "out"
    out.mkdir(parents=True)
    arguments, log = [part.format(out=out) for part in told], folder / "log"
    status, text = run_limited(arguments, log, limit), log.read_text(errors="replace")
    found = []
    if status not in (0, 2) or "Traceback" in text:
        found.append(f"limit {limit}: exit status {status}: {text[-400:]}")
    if status == 2 and sum(line.startswith("peaknet") for line in text.splitlines()) != 1:
        found.append(f"limit {limit}: not one line: {text[-400:]}")
    left = sorted(path.name for path in out.iterdir() if path.name.startswith("."))
    if status and left not in ([], [".p.parquet.stream"]):
        found.append(f"limit {limit}: left {left}")
    again = run_limited(arguments, log, None)
    if again:
        found.append(f"after limit {limit}: exit status {again}: {log.read_text()[-400:]}")
    whole = folder.parent / f"whole {command}"
    found += [
        f"after limit {limit}: {name} differs"
        for name in tables
        if not again and not pq.read_table(out / name).equals(pq.read_table(whole / "out" / name))
    ]
    return status == 2, found


def main(times: int, seed: int = 1, *, only: tuple[str, ...] = ()) -> dict[str, tuple[int, list[str]]]:
    """Fill the disk so many times under each command; return how often it was stopped, and what was wrong."""
    rng, seen = random.Random(seed), {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        commands = commands_on(folder)
        for command in only or commands:
            whole = folder / f"whole {command}" / "out"
            whole.mkdir(parents=True)
            status = run_limited(
                [part.format(out=whole) for part in commands[command][0]], folder / "log", None
            )
            if status:
                raise RuntimeError((folder / "log").read_text())
            largest = max(path.stat().st_size for path in whole.iterdir())
            rounds = [
                problems_of(
                    command,
                    folder / f"{command} {i}",
                    commands,
                    max(SMALLEST, int(largest * rng.random() ** 2)),
                )
                for i in range(times)
            ]
            seen[command] = (sum(stopped for stopped, _ in rounds), [p for _, one in rounds for p in one])
    return seen


if __name__ == "__main__":
    for name, (stopped, problems) in main(*map(int, sys.argv[1:])).items():
        told = {"command": name, "limits": int(sys.argv[1]), "stopped": stopped, "problems": problems}
        sys.stdout.write(json.dumps(told) + "\n")
