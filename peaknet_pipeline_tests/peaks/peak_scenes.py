"""Small synthetic frames with spots on a ring-shaped background, for tests of the finders."""

import numpy as np
from scipy.spatial import cKDTree


def radius_map(shape, *, gap=6):
    """Return the radius (n_panels, ss, fs) of panels stacked along ss, the beam near the middle."""
    n_panels, n_ss, n_fs = shape
    panel, ss, fs = np.mgrid[:n_panels, :n_ss, :n_fs]
    x = np.trunc(fs - n_fs / 2 + 0.3)
    y = np.trunc(ss + panel * (n_ss + gap) - n_panels * (n_ss + gap) / 2 + 0.4)
    return np.hypot(x, y).astype(np.float32)


def spotty_frame(seed, shape, radius, *, n_spots=40, level=30.0, dtype=np.float32):
    """Poisson counts of a falling background, a halo and Gaussian spots of 20 to 5,000 counts."""
    rng = np.random.default_rng(seed)
    rate = level * np.exp(-radius / radius.max()) + 0.5 * level * np.exp(-(((radius - 50) / 8) ** 2))
    n_panels, n_ss, n_fs = shape
    ss, fs = np.mgrid[:n_ss, :n_fs]
    for _ in range(n_spots):
        panel, y, x = rng.integers(n_panels), rng.uniform(0, n_ss), rng.uniform(0, n_fs)
        width, counts = rng.uniform(0.5, 1.5), 10 ** rng.uniform(1.3, 3.7)
        spot = np.exp(-((ss - y) ** 2 + (fs - x) ** 2) / (2 * width**2)) / (2 * np.pi * width**2)
        rate[panel] += counts * spot
    return rng.poisson(rate).astype(dtype)


def paired(found, reference, *, within=0.5):
    """Return (precision, recall, pairs): pairs are row numbers (found, reference) of peaks that agree."""
    pairs = []
    for key, ours in found.reset_index(drop=True).groupby(["frame", "panel"]):
        theirs = reference[(reference.frame == key[0]) & (reference.panel == key[1])]
        if theirs.empty:
            continue
        distance, nearest = cKDTree(theirs[["fs", "ss"]]).query(ours[["fs", "ss"]])
        hits = distance <= within
        pairs += list(zip(ours.index[hits], theirs.index[nearest[hits]], strict=True))
    array = np.array(pairs, int).reshape(-1, 2)
    precision = len(array) / len(found) if len(found) else 1.0
    recall = len(np.unique(array[:, 1])) / len(reference) if len(reference) else 1.0
    return precision, recall, array
