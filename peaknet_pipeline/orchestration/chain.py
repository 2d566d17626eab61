"""The chain, declared: every stage as an asset, in the order in which data flows."""

import dagster as dg

from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.labels.split import SplitParams
from peaknet_pipeline.metrics import MetricParams
from peaknet_pipeline.orchestration.assets import StageSpec
from peaknet_pipeline.peaks.match import MatchParams
from peaknet_pipeline.peaks.peakfinder8 import Peakfinder8Params
from peaknet_pipeline.runs.bad_pixels import BadPixelParams
from peaknet_pipeline.stages import finding, inference, ingest, labels, lattices, scoring, teaching
from peaknet_pipeline.stages.making import CODE

ON_MISSING = dg.AutomationCondition.on_missing()
FOLLOW = dg.AutomationCondition.any_deps_updated() & ~dg.AutomationCondition.in_progress()

CHAIN = (
    StageSpec(
        run=ingest.raw_run,
        output=ingest.manifest_path,
        deps=(),
        per_run=True,
        code_version=CODE["raw_run"],
        kinds=frozenset({"hdf5"}),
        checks=("has_photon_energy",),
        blocking=("has_photon_energy",),
    ),
    StageSpec(
        run=ingest.run_statistics,
        output=ingest.statistics_path,
        deps=("raw_run",),
        per_run=True,
        code_version=CODE["run_statistics"],
        kinds=frozenset({"hdf5", "numpy"}),
        parameters=BadPixelParams,
        checks=("mask_fraction",),
        blocking=("mask_fraction",),
    ),
    StageSpec(
        run=finding.classical_peaks,
        output=finding.classical_path,
        deps=("raw_run", "run_statistics"),
        per_run=True,
        code_version=CODE["classical_peaks"],
        kinds=frozenset({"parquet", "python"}),
        parameters=Peakfinder8Params,
        tables=("peaks",),
        checks=("inside_panels", "finite_intensities"),
        blocking=("inside_panels", "finite_intensities"),
    ),
    StageSpec(
        run=lattices.classical_index,
        output=lattices.classical_index_path,
        deps=("classical_peaks",),
        per_run=True,
        code_version=CODE["classical_index"],
        kinds=frozenset({"parquet", "pytorch"}),
        parameters=IndexParams,
        tables=("lattices", "reflections"),
        checks=("false_index_rate",),
    ),
    StageSpec(
        run=labels.peak_labels,
        output=labels.labels_path,
        deps=("run_statistics", "classical_peaks", "classical_index"),
        per_run=True,
        code_version=CODE["peak_labels"],
        kinds=frozenset({"hdf5", "parquet"}),
        parameters=MatchParams,
        tables=("fits", "matches", "frame_matches"),
        checks=("agrees_with_lmfit", "hits_have_lattices"),
        blocking=("agrees_with_lmfit", "hits_have_lattices"),
    ),
    StageSpec(
        run=teaching.training_set,
        output=teaching.training_set_path,
        deps=("peak_labels",),
        per_run=False,
        code_version=CODE["training_set"],
        kinds=frozenset({"parquet"}),
        parameters=SplitParams,
        tables=("training_set",),
        checks=("split_by_run",),
        blocking=("split_by_run",),
    ),
    StageSpec(
        run=teaching.peaknet_teacher,
        output=teaching.teacher_path,
        deps=("training_set",),
        per_run=False,
        code_version=CODE["peaknet_teacher"],
        kinds=frozenset({"pytorch"}),
        parameters=teaching.TeacherParams,
        checks=("learned_something",),
        blocking=("learned_something",),
        pool="gpu",
    ),
    StageSpec(
        run=teaching.peaknet_student,
        output=teaching.student_path,
        deps=("training_set", "peaknet_teacher"),
        per_run=False,
        code_version=CODE["peaknet_student"],
        kinds=frozenset({"pytorch"}),
        parameters=teaching.StudentParams,
        checks=("learned_something",),
        blocking=("learned_something",),
        pool="gpu",
    ),
    StageSpec(
        run=inference.peaknet_peaks,
        output=inference.peaknet_path,
        deps=("raw_run", "run_statistics", "peaknet_student"),
        per_run=True,
        code_version=CODE["peaknet_peaks"],
        kinds=frozenset({"parquet", "hdf5", "pytorch"}),
        parameters=inference.InferenceParams,
        tables=("peaks",),
        checks=("inside_panels", "finite_intensities"),
        blocking=("inside_panels", "finite_intensities"),
        pool="gpu",
        automation=ON_MISSING,
    ),
    StageSpec(
        run=lattices.peaknet_index,
        output=lattices.peaknet_index_path,
        deps=("peaknet_peaks",),
        per_run=True,
        code_version=CODE["peaknet_index"],
        kinds=frozenset({"parquet", "pytorch"}),
        parameters=IndexParams,
        tables=("lattices", "reflections"),
        checks=("false_index_rate",),
        automation=ON_MISSING,
    ),
    StageSpec(
        run=scoring.run_metrics,
        output=scoring.metrics_path,
        deps=("classical_peaks", "classical_index", "peaknet_peaks", "peaknet_index"),
        per_run=True,
        code_version=CODE["run_metrics"],
        kinds=frozenset({"parquet"}),
        parameters=MetricParams,
        tables=("run_metrics",),
        checks=("rates_in_range",),
        blocking=("rates_in_range",),
        automation=ON_MISSING,
    ),
    StageSpec(
        run=scoring.experiment_summary,
        output=scoring.summary_path,
        deps=("run_metrics",),
        per_run=False,
        code_version=CODE["experiment_summary"],
        kinds=frozenset({"parquet"}),
        tables=("run_metrics",),
        checks=("rates_in_range",),
        automation=FOLLOW,
    ),
)
"""All assets, upstream first."""
