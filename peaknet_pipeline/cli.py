"""The ``peaknet`` command: the chain's functions for a terminal, a script or a cluster job."""

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from peaknet_pipeline.commands.bench import bench
from peaknet_pipeline.commands.cell import cell
from peaknet_pipeline.commands.completion import completion
from peaknet_pipeline.commands.demo import demo
from peaknet_pipeline.commands.deploy import deploy
from peaknet_pipeline.commands.diagnose import diagnose
from peaknet_pipeline.commands.find import find
from peaknet_pipeline.commands.geometry import geometry
from peaknet_pipeline.commands.index import index
from peaknet_pipeline.commands.inspect import inspect
from peaknet_pipeline.commands.mask import mask
from peaknet_pipeline.commands.merge import merge
from peaknet_pipeline.commands.models import models
from peaknet_pipeline.commands.process import process
from peaknet_pipeline.commands.query import query
from peaknet_pipeline.commands.reduce import reduce
from peaknet_pipeline.commands.refine_geometry import refine_geometry
from peaknet_pipeline.commands.register import register
from peaknet_pipeline.commands.report import report
from peaknet_pipeline.commands.run import run
from peaknet_pipeline.commands.runs import runs
from peaknet_pipeline.commands.scan import scan
from peaknet_pipeline.commands.sections import SectionedGroup
from peaknet_pipeline.commands.simulate import simulate
from peaknet_pipeline.commands.stage import stage
from peaknet_pipeline.commands.stream import stream
from peaknet_pipeline.commands.tell import tell
from peaknet_pipeline.commands.trace import trace
from peaknet_pipeline.commands.ui import ui
from peaknet_pipeline.commands.view import view
from peaknet_pipeline.errors import PeaknetError
from peaknet_pipeline.faults import faults_explained

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Start here": (demo, ui, deploy, completion),
    "Runs of an experiment": (run, register, runs, view, query, diagnose, scan, report, trace, stage),
    "Networks": (models,),
    "One run at a time, without Dagster": (
        process,
        inspect,
        geometry,
        mask,
        find,
        cell,
        index,
        merge,
        refine_geometry,
        reduce,
        stream,
    ),
    "Simulation and measurement": (simulate, bench),
}


@click.group(
    cls=SectionedGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="peaknet-pipeline")
def peaknet() -> None:
    """PeakNet Pipeline: from raw diffraction runs to a table of indexing yields.

    Each command has --help. Exit status: 0 success, 2 bad input (one line on stderr says what, where, and what to do).
    """


def _share_the_machine() -> None:
    """Let idle threads sleep, and numba take no more threads than OpenMP may: it would raise torch's number to its own."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if threads.isdecimal():
        os.environ.setdefault("NUMBA_NUM_THREADS", threads)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: its temporary files go, and what was found is kept. The exit status is 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; whatever a user can mend becomes one line on stderr and exit status 2."""
    _share_the_machine()
    try:
        with _ended_in_order(), faults_explained(()):
            peaknet.main(args=arguments, prog_name="peaknet", standalone_mode=False)
    except PeaknetError as error:
        _fail("peaknet", str(error))
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "peaknet"
        _fail(command, f"{error.format_message()} Try '{command} --help'.")
    except click.ClickException as error:
        _fail("peaknet", error.format_message())
    except BrokenPipeError:  # whoever read our output has gone, as in `peaknet runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        tell("peaknet: interrupted; no output was left half-written", err=True)
        sys.exit(130)


def _fail(command: str, message: str) -> None:
    tell(f"{command}: {message}".replace("\n", " "), err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
