"""The ``peaknet`` command: the chain's domain functions for a terminal, a script or a cluster job."""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from peaknet_pipeline.errors import PeaknetError

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    envvar="PEAKNET_DATA",
    show_default=True,
    help="Data root.",
)
JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print the figures as one JSON object on the last line."
)
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set a parameter; may be repeated."
)
PATH = click.Path(path_type=Path)
HITS_ONLY = click.option("--hits-only", is_flag=True, help="Write hits only (data reduction).")
MIN_PEAKS = click.option(
    "--min-peaks", type=click.IntRange(1), default=15, show_default=True, help="Least peaks of a hit."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peaknet-pipeline")
def peaknet() -> None:
    """PeakNet Pipeline: from raw diffraction runs to a table of indexing yields."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a PeaknetError becomes one line on stderr and exit status 2."""
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # idle threads that spin stall busy ones on shared machines
    try:
        peaknet.main(args=arguments, prog_name="peaknet", standalone_mode=False)
    except PeaknetError as error:
        click.echo(f"peaknet: {error}".replace("\n", " "), err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("peaknet: interrupted; nothing half-written was left", err=True)
        sys.exit(130)


def figures(command: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """Make a command that returns figures print them, as lines or, with ``--json``, as one object."""

    @JSON
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, **kwargs: Any) -> None:
        result = command(*args, **kwargs)
        if as_json:
            click.echo(json.dumps(result, sort_keys=True, default=str))
            return
        for name, value in result.items():
            click.echo(f"{name.replace('_', ' '):>22}  {value}")

    return wrapped


@peaknet.command()
@DATA
def demo(data: Path) -> None:
    """Simulate a small experiment and take it through the whole chain, in Dagster."""
    from peaknet_pipeline.orchestration.demo import run_demo
    from peaknet_pipeline.stages.reporting import report_path
    from peaknet_pipeline.stages.scoring import format_scores, read_all_scores, summary_path
    from peaknet_pipeline.stages.store import Store

    store = Store(data)
    started = time.perf_counter()
    run_demo(store, say=click.echo)
    click.echo("")
    click.echo(format_scores(read_all_scores(store)))
    click.echo("")
    click.echo("  hit rate = hits / frames; indexing rate = indexed hits / hits; yield = indexed / frames;")
    click.echo(
        "  false index = azimuth-scrambled hits that index. demo-r0005 (test) was never seen in training."
    )
    click.echo("")
    click.echo(f"  tables   {data / 'store'}/*/*.parquet, all runs together {summary_path(store, 'all')}")
    click.echo(f"  plots    {data / 'store'}/*/plots/*.png")
    click.echo(f"  report   {report_path(store)}")
    click.echo(f"  UI       peaknet ui --data {data}")
    click.echo(f"  done in {time.perf_counter() - started:.0f} s")


@peaknet.command()
@DATA
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
def ui(data: Path, host: str, port: int) -> None:
    """Open the Dagster web server (and daemon) on the data root's instance."""
    from peaknet_pipeline.orchestration.instance import serve_ui
    from peaknet_pipeline.stages.store import Store

    click.echo(f"Dagster UI: http://{host}:{port}  (Ctrl-C stops it)")
    serve_ui(Store(data), host=host, port=port)


@peaknet.command()
@DATA
@click.argument("keys", nargs=-1, required=True)
def register(data: Path, keys: tuple[str, ...]) -> None:
    """Register run KEYS (``<experiment>-r0001``) as partitions; the sensor does the same by itself."""
    from peaknet_pipeline.orchestration.instance import open_instance
    from peaknet_pipeline.orchestration.partitions import register_runs
    from peaknet_pipeline.stages.store import Store

    added = register_runs(open_instance(Store(data)), list(keys))
    click.echo(f"registered {', '.join(added) or 'nothing new'}")


@peaknet.command()
@DATA
@JSON
def runs(data: Path, as_json: bool) -> None:
    """Print the table of runs: one row per run and finder, all rates with their denominators."""
    from peaknet_pipeline.stages.scoring import format_scores, read_all_scores
    from peaknet_pipeline.stages.store import Store

    scores = read_all_scores(Store(data))
    click.echo(scores.to_json(orient="records") if as_json else format_scores(scores))


@peaknet.command()
@click.option("--out", type=PATH, required=True, help="Folder for the run files, geometry and cell.")
@click.option("--runs", "n_runs", type=click.IntRange(1, 9999), default=1, show_default=True)
@click.option(
    "--frames", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Frames per run."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--experiment", default="simulated", show_default=True, help="Experiment name; 'demo' is the demo's own."
)
@figures
def simulate(out: Path, n_runs: int, frames: int, seed: int, experiment: str) -> dict[str, Any]:
    """Simulate runs with known truth: HDF5 files r0001.h5 …, a .geom and a .cell."""
    from peaknet_pipeline.stages.simulating import simulate_experiment

    return simulate_experiment(out, n_runs=n_runs, n_frames=frames, seed=seed, name=experiment)


@peaknet.command()
@click.argument("run", type=PATH)
@click.option("--geometry", type=PATH, help="CrystFEL geometry; needed unless the run carries its own.")
@click.option(
    "--finder", type=click.Choice(["peakfinder8", "peaknet"]), default="peakfinder8", show_default=True
)
@click.option("--model", type=PATH, help="Model folder for --finder peaknet; the shipped weights without it.")
@SETTINGS
@click.option("--mask", type=PATH, help="Extra mask file (HDF5, numpy); True or non-zero is bad.")
@click.option("--out", type=PATH, required=True, help="Peak table to write (Parquet).")
@click.option("--cxi", type=PATH, help="Also write the peaks as a CXI file that CrystFEL reads.")
@click.option("--masks", type=PATH, help="Also write the network's segmentation masks (HDF5).")
@HITS_ONLY
@MIN_PEAKS
@click.option("--images", is_flag=True, help="Copy the images into the CXI file, instead of linking to them.")
@figures
def find(
    run: Path,
    geometry: Path | None,
    finder: str,
    model: Path | None,
    settings: tuple[str, ...],
    mask: Path | None,
    out: Path,
    cxi: Path | None,
    masks: Path | None,
    hits_only: bool,
    min_peaks: int,
    images: bool,
) -> dict[str, Any]:
    """Find Bragg peaks in RUN, an HDF5 or CXI file."""
    from peaknet_pipeline.infer.params import OutputParams
    from peaknet_pipeline.stages.finding import find_command

    return find_command(
        run,
        geometry=geometry,
        finder=finder,
        model=model,
        settings=settings,
        mask=mask,
        out=out,
        cxi=cxi,
        masks=masks,
        output=OutputParams(
            hits_only=hits_only,
            min_peaks=min_peaks,
            images="copy" if images else "link",
            masks=masks is not None,
        ),
    )


@peaknet.command()
@click.argument("peaks", type=PATH)
@click.option("--geometry", type=PATH, required=True)
@click.option("--cell", type=PATH, required=True)
@click.option("--engine", type=click.Choice(["lattice", "indexamajig"]), default="lattice", show_default=True)
@SETTINGS
@click.option("--out", type=PATH, required=True, help="Lattice table to write (Parquet).")
@click.option("--stream", type=PATH, help="Also write a CrystFEL stream.")
@figures
def index(
    peaks: Path,
    geometry: Path,
    cell: Path,
    engine: str,
    settings: tuple[str, ...],
    out: Path,
    stream: Path | None,
) -> dict[str, Any]:
    """Index the frames of a peak table with a known cell."""
    from peaknet_pipeline.stages.index_command import index_command

    return index_command(
        peaks, geometry=geometry, cell=cell, engine=engine, settings=settings, out=out, stream=stream
    )


@peaknet.command()
@click.argument("source")
@click.option("--geometry", type=PATH, required=True)
@click.option("--finder", type=click.Choice(["peaknet", "peakfinder8"]), default="peaknet", show_default=True)
@click.option("--model", type=PATH, help="Model folder; the shipped weights without it.")
@click.option("--mask", type=PATH, help="Extra mask file.")
@click.option("--cell", type=PATH, help="Index hits with this cell as they come.")
@SETTINGS
@click.option("--out", type=PATH, help="Peak table to write (Parquet).")
@click.option("--cxi", type=PATH, help="CXI file to write, frames and peaks, as CrystFEL reads it.")
@HITS_ONLY
@MIN_PEAKS
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Serve /metrics for Prometheus here; 0: any port."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to serve on.")
@figures
def stream(
    source: str,
    geometry: Path,
    finder: str,
    model: Path | None,
    mask: Path | None,
    cell: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    cxi: Path | None,
    hits_only: bool,
    min_peaks: int,
    port: int | None,
    host: str,
) -> dict[str, Any]:
    """Find peaks live: SOURCE is a growing HDF5 file (SWMR), a folder that fills, or a ZeroMQ address to bind.

    Ctrl-C ends it: what has arrived is still found and written.
    """
    from peaknet_pipeline.stages.live import stream_command

    told = 0.0

    def report(now: Any, address: str | None) -> None:
        nonlocal told
        if time.monotonic() - told < 1.0:
            return
        if not told and address:
            click.echo(f"figures at {address}/metrics", err=True)
        told = time.monotonic()
        click.echo(
            f"{now.frames} frames, hit rate {now.hit_rate:.1%} ({now.hits} / {now.frames}), "
            f"indexed {now.indexed} / {now.hits} hits, {now.frames_per_second:.1f} frames/s, "
            f"latency p50 {now.latency_p50_s:.3f} s, p99 {now.latency_p99_s:.3f} s",
            err=True,
        )

    return stream_command(
        source,
        geometry=geometry,
        finder=finder,
        model=model,
        mask=mask,
        cell=cell,
        settings=settings,
        out=out,
        cxi=cxi,
        hits_only=hits_only,
        min_peaks=min_peaks,
        say=functools.partial(click.echo, err=True),
        serve=None if port is None else (host, port),
        report=report,
    )


@peaknet.command()
@click.argument("name")
@SETTINGS
@figures
def bench(name: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """Run benchmark NAME (finder, fit, index, model, simulate, stream); settings are its arguments."""
    from peaknet_pipeline.bench import registry

    return registry.run(name, settings)


if __name__ == "__main__":
    main()
