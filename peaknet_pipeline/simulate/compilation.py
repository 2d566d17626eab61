"""The one way in which this room compiles its loops."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(kernel: Kernel) -> Kernel:
    """Compile a loop with numba: cached on disk, without the interpreter lock, so that threads can run it."""
    return cast(Kernel, numba.njit(cache=True, nogil=True)(kernel))
