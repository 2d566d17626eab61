"""Within the block the process keeps what it frees, and gives it back afterwards."""

import resource
import sys

import numpy as np
import pytest

from peaknet_pipeline.bench.memory import resident_mib
from peaknet_pipeline.infer.heap import kept_heap

MIB = 2**20
PAGE = resource.getpagesize()


def faults_of_batches(n_batches: int) -> int:
    """Return the page faults of taking, filling and freeing 20 MiB again and again."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n_batches):
        parts = [np.ones(2 * MIB, dtype=np.uint8) for _ in range(10)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_memory_of_a_batch_is_mapped_once_and_handed_back() -> None:
    with kept_heap():
        faults_of_batches(1)
        assert faults_of_batches(20) < 20 * MIB // PAGE
        with kept_heap():
            pass
        assert faults_of_batches(20) < 20 * MIB // PAGE
        inside = resident_mib()
    assert resident_mib() < inside - 10
