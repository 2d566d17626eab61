"""Peaks of a run that is being taken."""

import functools
import time
from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.commands.files import OutputFile, Source, command, geometry_beside
from peaknet_pipeline.commands.options import (
    GEOMETRY,
    HITS_ONLY,
    INVERT_MASKS,
    MIN_PEAKS,
    PATH,
    ROOTS,
    SETTINGS,
    figures,
    finder_option,
)
from peaknet_pipeline.commands.tell import tell


@command()
@click.argument("source", type=Source())
@GEOMETRY
@finder_option("peaknet")
@click.option("--model", type=PATH, help="Model folder; the shipped weights without it.")
@click.option(
    "--mask", "masks", type=PATH, multiple=True,
    help="Extra mask file (HDF5, CXI, numpy), non-zero is bad; may be repeated.",
)  # fmt: skip
@INVERT_MASKS
@click.option("--cell", type=PATH, help="Index hits with this cell as they come.")
@SETTINGS
@click.option("--out", type=OutputFile(".parquet"), help="Peak table to write (Parquet).")
@click.option(
    "--cxi",
    type=OutputFile(".cxi", ".h5", beside=geometry_beside),
    help="CXI file to write, frames and peaks, as CrystFEL reads it.",
)
@click.option(
    "--segmentation", type=OutputFile(".h5", ".hdf5"), help="Network's segmentation masks to write (HDF5)."
)
@HITS_ONLY
@MIN_PEAKS
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Serve a page to look at, and /metrics for Prometheus, here; 0: any port.",
)
@click.option(
    "--secret-key",
    type=PATH,
    help="Own key file (NAME.key_secret, ZeroMQ's CURVE): only senders with a key in --sender-keys are heard.",
)
@click.option("--sender-keys", type=PATH, help="Folder with the public keys (NAME.key) of senders.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to serve on.")
@ROOTS
@figures
def stream(
    source: str,
    geometry: Path,
    finder: str,
    model: Path | None,
    masks: tuple[Path, ...],
    invert_masks: bool,
    cell: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    cxi: Path | None,
    segmentation: Path | None,
    hits_only: bool,
    min_peaks: int,
    port: int | None,
    host: str,
    secret_key: Path | None,
    sender_keys: Path | None,
    roots: tuple[Path, ...],
) -> dict[str, Any]:
    """Find peaks live: SOURCE is a growing HDF5 file (SWMR), a folder that fills, or a ZeroMQ address to bind.

    Ctrl-C ends it: what has arrived is still found and written. Whatever else ends it, the same command goes on from there.
    """
    from peaknet_pipeline.infer.live_sources import CurveKeys
    from peaknet_pipeline.steps.live import stream_command

    if (secret_key is None) != (sender_keys is None):
        raise click.UsageError("--secret-key and --sender-keys go together.")
    keys = None if secret_key is None or sender_keys is None else CurveKeys(secret_key, sender_keys)
    told = 0.0

    def report(now: Any) -> None:
        nonlocal told
        if time.monotonic() - told >= 1.0:
            told = time.monotonic()
            tell(live_line(now), err=True)

    return stream_command(
        source,
        geometry=geometry,
        finder=finder,
        model=model,
        masks=masks,
        invert_masks=invert_masks,
        cell=cell,
        settings=settings,
        out=out,
        cxi=cxi,
        segmentation=segmentation,
        hits_only=hits_only,
        min_peaks=min_peaks,
        say=functools.partial(tell, err=True),
        keys=keys,
        roots=roots,
        serve=None if port is None else (host, port),
        report=report,
    )


def live_line(now: Any) -> str:
    """Return a line of a live stream's figures so far."""
    indexed = "" if now.indexed is None else f", indexed {now.indexed} / {now.hits} hits"
    behind = f", {now.waiting} frames waiting" if now.waiting else ""
    return (
        f"{now.frames} frames, hit rate {now.hit_rate:.1%} ({now.hits} / {now.frames}){indexed}, "
        f"{now.frames_per_second:.1f} frames/s, "
        f"latency p50 {now.latency_p50_s:.3f} s, p99 {now.latency_p99_s:.3f} s{behind}"
    )
