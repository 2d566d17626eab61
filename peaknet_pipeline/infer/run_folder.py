"""Live frames from a folder in which run files appear."""

import time
from collections.abc import Iterator
from pathlib import Path

from peaknet_pipeline.infer.arrivals import Arrival, FileFacts, Patience, arrived_from_file, first_known
from peaknet_pipeline.runs.listing import list_runs
from peaknet_pipeline.runs.open import open_run
from peaknet_pipeline.types import Geometry


def follow_folder(
    folder: Path,
    *,
    geometry: Geometry | None = None,
    batch_frames: int = 8,
    settle_s: float = 2.0,
    patience: Patience | None = None,
) -> Iterator[Arrival]:
    """Yield the frames of every complete run file that appears in a folder, numbered through."""
    patience = patience or Patience(poll_s=1.0)
    known: set[Path] = set()
    first, news = 0, time.monotonic()
    while True:
        listed = list_runs(folder, settle_s=settle_s, known=known)
        for path in (run.path for run in listed if run.state == "complete"):
            known.add(path)
            with open_run(path, geometry) as run:
                facts = FileFacts(run.bad_pixels, first_known(run.photon_energy_ev))
                for start, frames in run.batches(batch_frames):
                    if patience.is_stopped:
                        return
                    waiting = run.n_frames - start - len(frames)
                    yield arrived_from_file(first + start, frames, facts, waiting)
                first += run.n_frames
            news = time.monotonic()
        if not patience.wait(news):
            return
