"""Read every attribute of a file, in a process of its own, within limits; run by :mod:`peaknet_pipeline.hdf5.trial`.

It knows nothing of this package: it starts quickly, and what ends it ends nothing else.
"""

import contextlib
import resource
import sys
import time
from typing import Any

import h5py

MAX_OBJECTS = 5000
SOFT_S, CPU_S, MEMORY_BYTES = 2.0, 4, 2 * 2**30
DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError, AttributeError)


def read_attributes(path: str) -> None:
    """Open a file, read the attributes of its objects for some time, and close it."""
    with h5py.File(path, "r") as file:
        known: set[int] = set()
        queue, started = [file["/"]], time.monotonic()
        while queue and len(known) < MAX_OBJECTS and time.monotonic() - started < SOFT_S:
            node = queue.pop(0)
            where = h5py.h5o.get_info(node.id).addr
            if where in known:
                continue
            known.add(where)
            with contextlib.suppress(*DAMAGE):
                _read_object(node)
            if isinstance(node, h5py.Group):
                with contextlib.suppress(*DAMAGE):
                    queue += _members(node)


def _read_object(node: Any) -> None:
    for name in list(node.attrs):
        with contextlib.suppress(*DAMAGE):
            _ = node.attrs[name]


def _members(group: Any) -> list[Any]:
    found = []
    for name in group:
        with contextlib.suppress(*DAMAGE):
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                found.append(group[name])
    return found


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(*DAMAGE):
        read_attributes(sys.argv[1])
