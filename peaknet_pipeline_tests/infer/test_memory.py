"""Batches fit the memory, and are neither too small to be worth it nor too large to overlap."""

import numpy as np
import pytest
import torch

from peaknet_pipeline.infer import memory
from peaknet_pipeline.infer.memory import HOST_SHARE, fit_batch, free_host_bytes

CPU = torch.device("cpu")


def frame(pixels: int, dtype: str = "uint16") -> np.ndarray:
    return np.broadcast_to(np.zeros((), dtype), (1, 1, 1, pixels))


def test_small_frames_go_in_larger_batches() -> None:
    small, large, huge = (fit_batch(frame(n), CPU) for n in (2**12, 2**20, 2**26))
    assert small > large > huge == 1


def test_all_batches_under_way_fit_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_host_bytes", lambda: 64 * 2**20)
    for in_flight in (4, 16, 100):
        one = frame(2**16, "float32")
        batch = fit_batch(one, CPU, in_flight=in_flight)
        assert batch == 1 or batch * one.nbytes * in_flight <= HOST_SHARE * 64 * 2**20
    assert fit_batch(frame(2**16), CPU, in_flight=4) > fit_batch(frame(2**16), CPU, in_flight=16)


def test_a_short_run_still_goes_in_several_batches() -> None:
    assert fit_batch(frame(64), CPU, n_frames=80) == 10
    assert fit_batch(frame(64), CPU, n_frames=3) == 1


def test_free_memory_is_less_than_the_machines() -> None:
    assert 2**26 < free_host_bytes() < 2**50
