"""Several processes that train one model: what torchrun sets up, and nothing if it didn't."""

import contextlib
import os
from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


@contextlib.contextmanager
def process_group() -> Iterator[torch.device]:
    """Join torchrun's process group (NCCL on GPUs, gloo otherwise) for a block; give the process's device.

    Outside torchrun it gives the first GPU, or the CPU, and sets nothing up.
    """
    on_gpu = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ or "RANK" not in os.environ:
        yield torch.device("cuda" if on_gpu else "cpu")
        return
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """Return this process's number and the number of processes; (0, 1) without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def mean_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Return the mean of a value over all processes."""
    _, size = rank_and_size()
    if size > 1:
        value = value.clone()
        distributed.all_reduce(value)
        value /= size
    return value


def shared_from_first(value: T) -> T:
    """Return the first process's value in every process."""
    _, size = rank_and_size()
    if size == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]
