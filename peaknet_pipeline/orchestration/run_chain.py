"""Parts of the chain materialized in this process, as Dagster runs: what is current stays, every stage tells how it went."""

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.utils import make_new_run_id

from peaknet_pipeline.errors import ParameterError, PeaknetError
from peaknet_pipeline.orchestration.build import build_defs
from peaknet_pipeline.orchestration.chain import CHAIN
from peaknet_pipeline.orchestration.instance import open_instance
from peaknet_pipeline.orchestration.jobs import PROCESS, SUMMARY, assets_of
from peaknet_pipeline.orchestration.launcher import HOST_TAG, end_dead_runs
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.orchestration.registered import PARTITIONS
from peaknet_pipeline.params import did_you_mean
from peaknet_pipeline.store.asset import SUMMARIZE
from peaknet_pipeline.store.freshness import is_current
from peaknet_pipeline.store.incoming import find_incoming_runs
from peaknet_pipeline.store.keys import parse_key
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import CODE
from peaknet_pipeline.store.raw_root import check_runs_have_files, read_raw_root

Say = Callable[[str], None]

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

HEADLINES = (
    "frames",
    "bad_pixels",
    "peaks",
    "hits",
    "indexed",
    "lattices",
    "labelled_reflections",
    "candidates",
)
"""Figures that the line of a stage shows, where the stage has them."""

LOOK_EVERY_S = 5.0
"""Seconds between two looks at the raw root while new runs are followed."""


@dataclass
class Turn:
    """One Dagster run: some stages of one run, or of all together."""

    job: str | None
    stages: Sequence[str]
    key: str | None = None

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return self.key or str(self.job)


@dataclass
class Chain:
    """A store with its instance and definitions, opened once."""

    store: Store
    instance: dg.DagsterInstance
    defs: dg.Definitions = field(repr=False)


def open_chain(store: Store) -> Chain:
    """Open a store's instance, and give back what runs of killed processes still hold."""
    instance = open_instance(store)
    end_dead_runs(instance)
    return Chain(store, instance, build_defs(str(store.root.absolute())))


def run_keys(
    store: Store,
    keys: Sequence[str],
    *,
    experiment: str | None,
    until: str | None,
    follow: bool,
    say: Say,
    tried: list[str],
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Take runs through the chain, one after the other; see ``peaknet run``. The keys of all that are tried go into ``tried``.

    Raises
    ------
    ParameterError
        No run was named, or ``until`` is no stage of a run.
    RunError
        A named run has no raw files.
    PeaknetError
        A stage of a run failed; the other runs were made all the same.

    """
    stages = stages_until(until)
    wanted = _wanted(store, keys, experiment)
    if not wanted and not follow:
        raise ParameterError(
            "no run was named",
            where=store.raw_root / (experiment or ""),
            remedy="Give keys such as lyso-r0001, or --experiment NAME; `peaknet runs` lists what there is.",
        )
    check_runs_have_files(store, wanted)
    chain = open_chain(store)
    tried += wanted
    failed = _run_all(chain, wanted, stages, say)
    try:
        while follow:
            known = set(chain.instance.get_dynamic_partitions(PARTITIONS)) | set(tried)
            new = find_incoming_runs(store, known=known).complete
            new = [key for key in new if experiment is None or parse_key(key).experiment == experiment]
            tried += new
            failed += _run_all(chain, new, stages, say)
            if not new:
                wait(LOOK_EVERY_S)
    except KeyboardInterrupt:
        say("  stopped following")
    if until is None and len(failed) < len(tried):
        failed += _failures(chain, [Turn(SUMMARIZE, SUMMARY)], say)
    if failed:
        raise PeaknetError("; ".join(failed), remedy=f"Look at it in `peaknet ui --data {store.root}`.")


def stages_until(until: str | None) -> tuple[str, ...]:
    """Return the stages of one run that lead to ``until``, upstream first; those of ingestion and inference without it.

    Raises
    ------
    ParameterError
        It is no stage that is made for each run by itself.

    """
    if until is None:
        return assets_of(PROCESS)
    per_run = {spec.name: spec for spec in CHAIN if spec.per_run}
    if until not in per_run:
        raise ParameterError(
            "no stage of a run",
            where="--until",
            expected=f"one of {', '.join(per_run)}",
            found=until,
            remedy=did_you_mean(until, per_run),
        )
    needed, todo = {until}, [until]
    while todo:
        new = [name for name in per_run[todo.pop()].deps if name in per_run and name not in needed]
        needed |= set(new)
        todo += new
    return tuple(name for name in per_run if name in needed)


def make(chain: Chain, turn: Turn, *, say: Say, every_stage: bool = True) -> None:
    """Materialize what is not current of a turn's stages.

    Raises
    ------
    PeaknetError
        An asset failed; the Dagster run tells the whole story.

    """
    stale = find_stale(chain, turn.stages, turn.key)
    if not stale:
        say(f"  {turn.label}: already made")
        return
    start = time.perf_counter()
    if not every_stage:
        say(f"  {turn.job} {turn.key or ''}".rstrip() + f": {' → '.join(stale)}")
    job = (
        chain.defs.resolve_job_def(turn.job)
        if turn.job
        else chain.defs.resolve_implicit_global_asset_job_def()
    )
    run_id = make_new_run_id()
    if every_stage:
        chain.instance.add_event_listener(run_id, lambda entry: _tell_stage(entry, turn.label, say))
    result = job.execute_in_process(
        instance=chain.instance,
        partition_key=turn.key,
        asset_selection=[dg.AssetKey(name) for name in stale],
        run_config=QUIET,
        tags={HOST_TAG: socket.gethostname()},
        raise_on_error=False,
        run_id=run_id,
    )
    for verdict in _verdicts_that_keep_the_champion(result):
        say(f"  {turn.label}: {verdict}")
    _raise_on_failure(result, turn.label)
    if not every_stage:
        say(f"  {turn.job} {turn.key or ''}".rstrip() + f": done in {time.perf_counter() - start:.1f} s")


def find_stale(chain: Chain, stages: Sequence[str], key: str | None) -> list[str]:
    """Return the stages that Dagster doesn't know, whose output isn't current, or that come after such a one in the list."""
    outputs = {spec.name: spec.path for spec in CHAIN}
    for position, name in enumerate(stages):
        output = outputs[name](chain.store, key or "all")
        if not (_is_known(chain.instance, name, key) and is_current(output, code=CODE[name])):
            return list(stages[position:])
    return []


def _wanted(store: Store, keys: Sequence[str], experiment: str | None) -> list[str]:
    if experiment is None:
        return list(dict.fromkeys(keys))
    of_experiment = [
        key for key in sorted(read_raw_root(store).runs) if parse_key(key).experiment == experiment
    ]
    return list(dict.fromkeys([*keys, *of_experiment]))


def _run_all(chain: Chain, keys: Iterable[str], stages: Sequence[str], say: Say) -> list[str]:
    keys = list(keys)
    register_runs(chain.instance, keys)
    by_job = set(stages) <= set(assets_of(PROCESS))
    return _failures(chain, [Turn(PROCESS if by_job else None, stages, key) for key in keys], say)


def _failures(chain: Chain, turns: Iterable[Turn], say: Say) -> list[str]:
    """Make each turn; return what went wrong, a line for each one that failed."""
    failed = []
    for turn in turns:
        try:
            make(chain, turn, say=say)
        except PeaknetError as error:
            failed.append(str(error.what))
    return failed


def _tell_stage(entry: dg.EventLogEntry, label: str, say: Say) -> None:
    """Say a line for every stage that ends, and one for every check that fails."""
    event = entry.dagster_event
    if event is None:
        return
    if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION:
        made = event.step_materialization_data.materialization
        figures = {name: value.value for name, value in made.metadata.items()}
        shown = ", ".join(
            f"{figures[n]:,} {n.replace('_', ' ')}" for n in HEADLINES if _is_count(figures.get(n))
        )
        say(f"  {label}  {made.asset_key.to_user_string():<16}  {shown}".rstrip())
    elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        if not check.passed:
            told = str(check.description or "").replace("\n", " ")
            say(f"  {label}  {check.asset_key.to_user_string():<16}  doubt ({check.check_name}): {told}")
    elif event.is_step_failure:
        say(f"  {label}  {event.step_key:<16}  FAILED: {_reason(event)}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_known(instance: dg.DagsterInstance, name: str, key: str | None) -> bool:
    asset = dg.AssetKey(name)
    if key is None:
        return instance.get_latest_materialization_event(asset) is not None
    return key in instance.get_materialized_partitions(asset)


def _verdicts_that_keep_the_champion(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return why a challenger lost, if one did: no failure of the turn, since the champion goes on."""
    return [
        str(evaluation.description)
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == "no_worse_than_champion" and not evaluation.passed
    ]


def _raise_on_failure(result: dg.ExecuteInProcessResult, label: str) -> None:
    if result.success or _verdicts_that_keep_the_champion(result):
        return
    reasons = [f"{e.step_key}: {_reason(e)}" for e in result.all_events if e.is_step_failure]
    reasons = reasons or [
        f"{check.asset_key.to_user_string()}: {check.check_name}: {check.description}"
        for check in result.get_asset_check_evaluations()
        if not check.passed and check.blocking
    ]
    raise PeaknetError(
        f"{label}: {'; '.join(reasons) or 'a blocking check failed'}",
        remedy=f"See run {result.run_id} in the Dagster UI.",
    )


def _reason(event: dg.DagsterEvent) -> str:
    """Return why a step failed, in one line: what the stage said, or the error's own first words."""
    failure = event.step_failure_data
    told = failure.user_failure_data.description if failure.user_failure_data is not None else None
    if told is None and failure.error is not None:
        cause = failure.error
        while cause.cause is not None:
            cause = cause.cause
        told = cause.message
    return " ".join(str(told or "no reason was recorded").split())
