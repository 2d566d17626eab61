"""The one way in which the finders compile their loops."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(*, inline: bool = False, fastmath: frozenset[str] = frozenset()) -> Callable[[Kernel], Kernel]:
    """Compile a loop with numba: cached on disk, without the interpreter lock, so that threads can run it.

    ``inline`` copies it into its callers; ``fastmath`` names what LLVM may assume about floating point.
    """
    options: dict[str, Any] = {"inline": "always" if inline else "never"}
    if fastmath:
        options["fastmath"] = set(fastmath)
    decorate = numba.njit(cache=True, nogil=True, **options)
    return cast(Callable[[Kernel], Kernel], decorate)


REASSOCIATE = frozenset({"reassoc", "nsz", "contract"})
"""Lets a sum be taken in vector lanes; NaN and infinities keep their meaning."""
