"""How every stage makes its output: timed, with its recipe kept beside it."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from peaknet_pipeline.atomic import write_file
from peaknet_pipeline.provenance import Recipe, make_recipe, write_recipe
from peaknet_pipeline.store.stage_result import StageResult


class Versions(dict[str, str]):
    """Versions by stage; a stage that isn't named has its first one."""

    def __missing__(self, stage: str) -> str:
        """Return the first version."""
        return "1"


CODE = Versions(
    run_statistics="2",
    finder_scan="4",
    classical_index="3",
    diagnosis="2",
    peak_labels="5",
    curated_labels="4",
    training_set="3",
    peaknet_teacher="2",
    peaknet_student="2",
    champion="2",
    peaknet_peaks="3",
    peaknet_index="3",
    run_metrics="2",
    experiment_summary="3",
)
"""Version of each stage's meaning; raise one when its output changes for the same inputs."""


def make_stage(
    stage: str,
    *,
    parameters: Mapping[str, Any],
    inputs: Iterable[Path],
    build: Callable[[Recipe], StageResult],
) -> StageResult:
    """Run ``build`` and record its output's recipe, time and figures."""
    recipe = make_recipe(stage, code=CODE[stage], parameters=parameters, inputs=inputs)
    start = time.perf_counter()
    result = build(recipe)
    for name, png in result.plots.items():
        write_file(plot_path(result.output, name), png)
    verdicts = [
        {"name": c.name, "passed": bool(c.passed), "description": c.description} for c in result.checks
    ]
    seconds = time.perf_counter() - start
    write_recipe(result.output, recipe, seconds=seconds, figures=result.figures, checks=verdicts)
    return StageResult(
        result.output,
        result.figures,
        result.tables,
        result.plots,
        result.checks,
        data_version=recipe.digest(),
    )


def plot_path(output: Path, name: str) -> Path:
    """Return where a plot of an output lies."""
    return output.parent / "plots" / f"{output.stem}_{name}.png"
