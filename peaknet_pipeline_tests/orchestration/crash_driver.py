"""Kill materializations with SIGKILL and look at what they leave.

Run as a script: ``crash_driver.py ROOT PARTITION ASSET[:EVENT,EVENT…] …``, upstream assets first.
Each asset is materialized once undisturbed, then once per event with a kill just before that event, then undisturbed
again. Assets that make a new version of a model, or a champion, are killed each time where none of theirs was made, and
materialized again after every kill; so are those that go on from unfinished work. An event is a temporary that is made or
a final name that is given; without a list, or at ``all`` in it, every one of them. A fraction such as ``0.4`` kills after
that share of the undisturbed time, wherever the process happens to be.
Prints JSON.
"""

import functools
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import h5py
import numpy as np
import pyarrow.parquet as pq
from safetensors import safe_open

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.checkpoint import CARD_FILE, read_checkpoint, shipped_models
from peaknet_pipeline.learn.registry import list_models
from peaknet_pipeline.orchestration.build import build_defs
from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.orchestration.instance import open_instance
from peaknet_pipeline.orchestration.launcher import HOST_TAG, end_dead_runs
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.provenance import read_recipe
from peaknet_pipeline.store.freshness import is_current
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import CODE
from peaknet_pipeline.tables import read_table_metadata

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
MADE = ("store", "models", "report")
VERSIONED = ("peaknet_teacher", "peaknet_student", "champion")
"""Assets whose every materialization makes another version, or finds another champion than the one before."""

TAKEN_UP = ("peaknet_peaks",)
"""Assets that go on from what a killed run of theirs has found; without a new start, each kill would meet other events."""

ALLOWED = {"champion": (0, 3)}
"""Exit statuses of an undisturbed materialization; a challenger that loses fails its blocking check."""

PRELOADED = ("matplotlib.pyplot", "torch", "lmfit", "scipy.optimize")
"""What stages import when they need it; loaded once here instead of in every child."""


class KillBefore:
    """An audit hook that counts the writer's events below a root and kills the process before one of them."""

    def __init__(self, root: Path, kill_at: int | None) -> None:
        self.folders = tuple(str(root / name) + os.sep for name in MADE)
        self.kill_at = kill_at
        self.n = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count, and kill where it is time."""
        if not self._counts(event, arguments):
            return
        if self.n == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.n += 1

    def _counts(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "ctypes.dlsym":
            return bool(arguments[1] == "renameat2")
        place = {"os.rename": 1, "tempfile.mkstemp": 0, "tempfile.mkdtemp": 0}.get(event)
        return place is not None and os.fsdecode(arguments[place]).startswith(self.folders)


def materialize(
    root: Path, asset: str, partition: str | None, *, kill: int | float | None
) -> tuple[int, int, float]:
    """Materialize in a child; return its exit status, the number of events and the seconds taken."""
    reader, writer = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(_child(root, asset, partition, kill, writer))
    os.close(writer)
    with os.fdopen(reader) as stream:
        told = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, int(told or -1), time.monotonic() - started


def _child(root: Path, asset: str, partition: str | None, kill: int | float | None, writer: int) -> int:
    hook = KillBefore(root, kill if isinstance(kill, int) else None)
    sys.addaudithook(hook)
    if isinstance(kill, float):
        threading.Timer(kill, os.kill, (os.getpid(), signal.SIGKILL)).start()
    instance = open_instance(Store(root))
    end_dead_runs(instance)
    if instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        return 4
    result = _job(root).execute_in_process(
        instance=instance,
        tags={HOST_TAG: socket.gethostname()},
        partition_key=partition,
        asset_selection=[dg.AssetKey(asset)],
        run_config=QUIET,
        raise_on_error=False,
    )
    os.write(writer, str(hook.n).encode())
    return 0 if result.success else 3


@functools.cache
def _job(root: Path) -> dg.JobDefinition:
    return build_defs(str(root)).resolve_implicit_global_asset_job_def()


def files(root: Path) -> Iterator[Path]:
    """Yield everything that was made, temporaries too."""
    for name in MADE:
        yield from (path for path in sorted((root / name).rglob("*")) if path.is_file())


def leftovers(root: Path) -> list[str]:
    """Return temporaries."""
    return [str(path.relative_to(root)) for path in files(root) if ".tmp" in str(path.relative_to(root))]


def broken(root: Path) -> list[str]:
    """Return what does not open under its final name, and outputs that would pass for current but are not."""
    found = []
    for path in files(root):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{path.relative_to(root)}: {error}")
    return found


def _read(path: Path) -> None:
    if path.suffix == ".parquet":
        pq.read_table(path)
    elif path.suffix in (".h5", ".cxi"):
        with h5py.File(path) as file:
            file.visititems(lambda name, found: found[()] if isinstance(found, h5py.Dataset) else None)
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".png":
        assert path.read_bytes().endswith(b"IEND\xaeB`\x82"), "cut short"
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>"), "cut short"


def contents(root: Path) -> dict[str, str]:
    """Return a hash of every file whose content is decided by its inputs: no figures, times or pages made of them.

    Versions of a model count as one: a killed training may use up a number.
    """
    skipped = (".recipe.json", ".html", ".png")
    return {
        re.sub(r"-v\d{4}\b", "-v", str(path.relative_to(root))): hashlib.sha256(_decided(path)).hexdigest()
        for path in files(root)
        if not path.name.endswith(skipped) and not path.name.startswith(".")
    }


def _decided(path: Path) -> bytes:
    """Return what inputs decide of a file: of what names a model's version, all but that name and the time.

    Of a comparison it is the champion: once that is promoted there is nothing left to compare.
    """
    if path.parts[-2:] == ("champion", "all.parquet"):
        return re.sub(r"-v\d{4}\b", "-v", read_table_metadata(path)["champion"]).encode()
    if path.suffix != ".json":
        return path.read_bytes()
    values = json.loads(path.read_text())
    kept = {k: v for k, v in values.items() if k not in ("made", "name", "model", "teacher", "history")}
    versions = [re.sub(r"-v\d{4}\b", "-v", name) for name in values.get("history", [])]
    return json.dumps([kept, versions if path.parent.name == "models" else None], sort_keys=True).encode()


def half_made(root: Path) -> list[str]:
    """Return registered versions of models that cannot be read, or do not tell what they were made from."""
    found = []
    for name in list_models(root / "models"):
        try:
            read_checkpoint(root / "models" / name)
        except ModelError as error:
            found.append(str(error))
        card = root / "models" / name / CARD_FILE
        record = read_recipe(card)
        if not name.startswith(tuple(shipped_models())) and (
            record is None or not is_current(card, code=record["code"])
        ):
            found.append(f"{name} does not tell what it was made from")
    return found


class Kept:
    """What was made so far, kept to go back to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = Path(tempfile.mkdtemp(dir=root.parent, prefix="kept."))
        self._copy(root, self.folder)

    def restore(self) -> None:
        """Put everything back as it was."""
        for name in MADE:
            shutil.rmtree(self.root / name, ignore_errors=True)
        self._copy(self.folder, self.root)

    def forget(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.folder)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        for name in MADE:
            if (source / name).exists():
                shutil.copytree(source / name, target / name)


def crash(root: Path, asset: str, partition: str | None, events: list[str]) -> dict[str, Any]:
    """Materialize, kill at each event, look, and materialize again."""
    spec = next(spec for spec in CHAIN if spec.name == asset)
    partition = partition if spec.per_run else None
    output = spec.path(Store(root), partition or "all")
    kept = Kept(root) if asset in VERSIONED else None
    status, n_events, seconds = materialize(root, asset, partition, kill=None)
    told: dict[str, Any] = {"asset": asset, "events": n_events, "seconds": round(seconds, 2), "problems": []}
    expected = ALLOWED.get(asset, (0,))
    if status not in expected:
        told["problems"].append(f"undisturbed: exit status {status}")
    before = contents(root)
    points: list[int | float] = []
    for event in events:
        every = list(range(n_events)) if event == "all" else []
        points += every or [float(event) * seconds if "." in event else int(event)]
    told |= {"kills": len(points), "leftovers": 0}
    for point in points:
        if kept:
            kept.restore()
        status, _, _ = materialize(root, asset, partition, kill=point)
        if status != -signal.SIGKILL and (isinstance(point, int) or status not in expected):
            told["problems"].append(f"at {point}: exit status {status}")
        told["problems"] += [f"at {point}: {problem}" for problem in (*broken(root), *half_made(root))]
        named = {name: hash for name, hash in contents(root).items() if "/." not in name}
        if named != before and is_current(output, code=CODE[asset]):
            told["problems"].append(f"at {point}: something else passes for current")
        told["leftovers"] += len(leftovers(root))
        if kept or asset in TAKEN_UP or point == points[-1]:
            again = materialize(root, asset, partition, kill=None)[0]
            told["problems"] += [
                f"after {point}: {text}" for text in _wrong(root, before, output, asset, again)
            ]
    if kept:
        kept.forget()
    return told


def _wrong(root: Path, before: dict[str, str], output: Path, asset: str, status: int) -> Iterator[str]:
    """Yield what is not as it was before the kill, when all was made again."""
    if status not in ALLOWED.get(asset, (0,)):
        yield f"exit status {status}"
    after = contents(root)
    yield from (f"{name} differs" for name in before if before[name] != after.get(name))
    yield from (f"{name} was not there before" for name in after if name not in before)
    yield from (f"{name} is left" for name in leftovers(root))
    if not is_current(output, code=CODE[asset]):
        yield "the output does not pass for current"


def preload(root: Path) -> None:
    """Import what every child needs, without starting a thread."""
    for name in PRELOADED:
        importlib.import_module(name)
    _job(root)


def main(root: Path, partition: str, plans: list[str]) -> None:
    """Crash each planned asset in turn."""
    preload(root)
    register_runs(open_instance(Store(root)), [partition])
    for plan in plans:
        asset, _, listed = plan.partition(":")
        told = crash(root, asset, partition, (listed or "all").split(","))
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:])
