"""Look into HDF5 files, each in a child within limits; run by :mod:`peaknet_pipeline.hdf5.trial`.

It reads one line of JSON for each file, ``[path, growing]``, and answers with one line: how the child ended that looked
into it. It knows nothing of this package, so that it starts quickly; nothing that ends a child ends anything else.
"""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any

import h5py

MAX_OBJECTS = 5000
SOFT_S, CPU_S, WALL_S, MEMORY_BYTES = 1.5, 3, 30, 2 * 2**30
IDLE_S = 20.0
"""After this time without a file the process ends, and gives its memory back."""
DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError, AttributeError)


def look_into(path: str, growing: bool) -> None:
    """Open a file and, for some time, its objects, their attributes and where their data lie; read no data."""
    how: dict[str, Any] = {"libver": "latest", "swmr": True} if growing else {}
    with h5py.File(path, "r", **how) as file:
        known: set[int] = set()
        queue, started = [file["/"]], time.monotonic()
        while queue and len(known) < MAX_OBJECTS and time.monotonic() - started < SOFT_S:
            node = queue.pop(0)
            where = h5py.h5o.get_info(node.id).addr
            if where in known:
                continue
            known.add(where)
            with contextlib.suppress(*DAMAGE):
                _look_at_attributes(node)
            with contextlib.suppress(*DAMAGE):
                if isinstance(node, h5py.Group):
                    queue += _members(node)
                elif isinstance(node, h5py.Dataset):
                    _look_at_storage(node)


def _look_at_attributes(node: Any) -> None:
    for name in list(node.attrs):
        with contextlib.suppress(*DAMAGE):
            _ = node.attrs[name]


def _look_at_storage(dataset: Any) -> None:
    _ = dataset.dtype
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if layout == h5py.h5d.VIRTUAL:  # its shape may lie in other files, which are not this process's to open
        for i in range(min(properties.get_virtual_count(), MAX_OBJECTS)):
            _ = properties.get_virtual_filename(i), properties.get_virtual_dsetname(i)
        return
    _ = dataset.shape
    if layout == h5py.h5d.CHUNKED and dataset.id.get_num_chunks():
        _ = dataset.id.get_chunk_info(0)


def _members(group: Any) -> list[Any]:
    found = []
    for name in group:
        with contextlib.suppress(*DAMAGE):
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                found.append(group[name])
    return found


def ending(path: str, growing: bool) -> int:
    """Let a child look into a file; return 0, or minus the number of the signal that ended it."""
    child = os.fork()
    if child == 0:
        signal.alarm(WALL_S)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(Exception):  # what h5py says of damage, it says in the other process too
            look_into(path, growing)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Answer for one file after another, until the other side closes, or asks nothing for some time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who asked
    while select.select([sys.stdin], [], [], IDLE_S)[0]:
        line = sys.stdin.buffer.readline()
        if not line:
            return
        sys.stdout.write(f"{ending(*json.loads(line))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
