"""peakfinder8 written down rule by rule with plain numpy and lists: slow, and what ours must match."""

from collections import deque

import numpy as np


def ring_limits(stack, ring, usable, params):
    """Five passes over the whole stack; returns each ring's mean and upper limit."""
    n_rings = ring.max() + 1
    mean = np.zeros(n_rings)
    lower, upper = np.full(n_rings, -1e9), np.full(n_rings, 1e9)
    for _ in range(5):
        inside = usable & (stack > lower[ring]) & (stack < upper[ring])
        n = np.bincount(ring[inside], minlength=n_rings)
        total = np.bincount(ring[inside], stack[inside], n_rings)
        square = np.bincount(ring[inside], stack[inside] ** 2, n_rings)
        some = n > 0
        mean = np.divide(total, n, out=np.zeros(n_rings), where=some)
        variance = np.divide(square, n, out=np.zeros(n_rings), where=some) - mean**2
        sigma = np.sqrt(np.maximum(variance, 0))
        upper = np.where(some, np.maximum(mean + params.min_snr * sigma, params.threshold), np.inf)
        lower = np.where(some, mean - params.min_snr * sigma, -1e9)
    return mean, upper


def plain_find_peaks(stack, radius, bad_pixels, params):
    """Return a list of (panel, fs, ss, intensity, n_pixels) of one frame."""
    stack = stack.astype(np.float64)
    usable = ~bad_pixels & np.isfinite(stack)
    if params.min_res > 0:
        usable &= radius > params.min_res
    if params.max_res > 0:
        usable &= radius < params.max_res
    ring = np.rint(radius).astype(int)
    stack = np.where(usable, stack, 0.0)
    mean, upper = ring_limits(stack, ring, usable, params)
    above = usable & (stack > upper[ring])
    marked = np.zeros(stack.shape, bool)
    peaks = []
    n_panels, n_ss, _ = stack.shape
    for panel in range(n_panels):
        for ss in range(1, n_ss - 1):
            for fs in np.flatnonzero(above[panel, ss, 1:-1]) + 1:
                if marked[panel, ss, fs] or len(peaks) == params.max_peaks:
                    continue
                blob = flood(above[panel], marked[panel], ss, fs)
                if params.min_pix <= len(blob) <= params.max_pix:
                    peak = measure(
                        stack[panel], ring[panel], usable[panel], marked[panel], mean, upper, blob, params
                    )
                    peaks += [(panel, *peak)] if peak else []
    return peaks


def flood(above, marked, ss, fs):
    """Mark and return the (ss, fs) of the 8-connected pixels that belong to the seed."""
    blob, queue = [], deque([(ss, fs)])
    marked[ss, fs] = True
    while queue:
        y, x = queue.popleft()
        blob.append((y, x))
        for v in range(max(y - 1, 0), min(y + 2, above.shape[0])):
            for u in range(max(x - 1, 0), min(x + 2, above.shape[1])):
                if above[v, u] and not marked[v, u]:
                    marked[v, u] = True
                    queue.append((v, u))
    return blob


def measure(image, ring, usable, marked, mean, upper, blob, params):
    """Return (fs, ss, intensity, n_pixels), or None when the blob is no peak."""
    ys, xs = np.array(blob).T
    values = image[ys, xs]
    single = np.float32
    w = np.abs(values.astype(single) - mean[ring[ys, xs]].astype(single))
    total = np.cumsum(w, dtype=single)[-1]
    cx = int(np.rint(np.cumsum(w * xs.astype(single), dtype=single)[-1] / total))
    cy = int(np.rint(np.cumsum(w * ys.astype(single), dtype=single)[-1] / total))
    reach = 2 * params.local_bg_radius
    found = [
        image[y, x]
        for y in range(cy - reach, cy + reach)
        for x in range(cx - reach, cx + reach)
        if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
        and (y - cy) ** 2 + (x - cx) ** 2 <= reach**2
        and usable[y, x] and not marked[y, x] and image[y, x] < upper[ring[y, x]]
    ]  # fmt: skip
    offset = np.mean(found) if found else mean[ring[cy, cx]]
    sigma = np.std(found) if found else 0.01
    highest = max(found) if found else offset
    intensity = (values - offset).sum()
    snr = intensity / sigma if sigma > 0 else 0
    if snr < params.min_snr or values.max() < highest:
        return None
    fs, ss = (values * xs).sum() / values.sum(), (values * ys).sum() / values.sum()
    inside = 0 <= fs <= image.shape[1] - 1 and 0 <= ss <= image.shape[0] - 1
    return (fs, ss, intensity, len(blob)) if inside else None
