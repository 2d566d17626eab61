"""A checksum of a run that is stable and cheap."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

WHOLE_BYTES = 64 * 2**20
SAMPLE_BYTES = 256 * 2**10
N_SAMPLES = 64


def checksum_files(paths: Sequence[Path]) -> str:
    """Return ``sha256:…`` of a run's files, the run's own first and then those it links to.

    Files up to 64 MiB count whole. Of larger ones the size and 64 blocks of 256 KiB, evenly spaced from the
    first to the last byte, count (``sha256-sampled:…``): enough to notice another run, a copy cut short or a
    rewritten file, not every flipped bit. Names and times don't count, so a copied or renamed run keeps its
    checksum.
    """
    digest = hashlib.sha256()
    sampled = False
    for path in paths:
        size = path.stat().st_size
        digest.update(str(size).encode())
        sampled |= size > WHOLE_BYTES
        with path.open("rb") as stream:
            for offset in _offsets(size):
                stream.seek(offset)
                digest.update(stream.read(SAMPLE_BYTES))
    return f"sha256{'-sampled' if sampled else ''}:{digest.hexdigest()}"


def _offsets(size: int) -> list[int]:
    if size <= WHOLE_BYTES:
        return list(range(0, size, SAMPLE_BYTES))
    last = size - SAMPLE_BYTES
    return [last * i // (N_SAMPLES - 1) for i in range(N_SAMPLES)]
