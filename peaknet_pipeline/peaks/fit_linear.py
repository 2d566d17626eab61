# mypy: disallow-untyped-defs=false, disallow-untyped-calls=false
"""Small dense positive-definite systems, for use inside compiled loops."""

import math

from numba import njit


@njit(nogil=True, cache=True)
def factor_cholesky(matrix, n):
    """Factor the leading n×n block in place (lower); return False when it is not positive definite."""
    for j in range(n):
        total = matrix[j, j]
        for k in range(j):
            total -= matrix[j, k] * matrix[j, k]
        if not total > 1e-14:
            return False
        root = math.sqrt(total)
        matrix[j, j] = root
        for i in range(j + 1, n):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = total / root
    return True


@njit(nogil=True, cache=True)
def solve_factored(factor, x, n):
    """Solve L Lᵀ x = x in place."""
    for i in range(n):
        for k in range(i):
            x[i] -= factor[i, k] * x[k]
        x[i] /= factor[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            x[i] -= factor[k, i] * x[k]
        x[i] /= factor[i, i]
