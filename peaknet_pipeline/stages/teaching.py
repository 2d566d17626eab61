"""From labelled runs to a trained teacher and a distilled student."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from peaknet_pipeline.devices import DeviceParams, choose_device
from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.labels.cache import CachedRun, cache_run
from peaknet_pipeline.labels.dataset import CropDataset, CropParams, PanelDataset
from peaknet_pipeline.labels.split import CLASSICAL
from peaknet_pipeline.learn.checkpoint import CARD_FILE, ModelCard, read_checkpoint, write_checkpoint
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.crops import Crop, ValidationPanel, panel_from_crop
from peaknet_pipeline.learn.distill import distill_student
from peaknet_pipeline.learn.model import build_model, count_parameters
from peaknet_pipeline.learn.recipe import TrainParameters
from peaknet_pipeline.learn.registry import register
from peaknet_pipeline.learn.train import TrainResult, train_model
from peaknet_pipeline.learn.transforms import TransformParameters
from peaknet_pipeline.params import declared, parameter
from peaknet_pipeline.plots.curves import plot_losses
from peaknet_pipeline.provenance import Recipe, make_recipe, now, write_recipe
from peaknet_pipeline.schemas import SPLIT, SplitTable
from peaknet_pipeline.steps.progress import counting_bar, progress_bar
from peaknet_pipeline.store.asset import IMPROVE, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.models import newest_model, newest_path, write_newest
from peaknet_pipeline.store.paths import (
    curated_labels_path,
    labels_path,
    read_bad_pixels,
    training_set_path,
)
from peaknet_pipeline.store.run_files import frame_reader, open_raw, read_context
from peaknet_pipeline.store.settings import pipeline_parameters, settings_inputs
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.store.training_manifest import keep_manifest, manifest_file, read_manifest
from peaknet_pipeline.tables import read_table
from peaknet_pipeline.version import code_version

LEAST_RECALL = 0.2
"""Validation recall below which a network is worth nothing and stops the chain."""


@dataclass(frozen=True)
class NetworkTraining(TrainParameters):
    """Which network is trained, on which crops, and how."""

    scale: str = parameter("yocto", meaning="named size of the network")
    crop_size: int = parameter(64, meaning="side of a training crop", unit="px", ge=16)
    crops: int = parameter(4096, meaning="different crops cut from the training frames", ge=1)
    validation_panels: int = parameter(160, meaning="most panels scored in a validation", ge=1)
    device: str = declared(DeviceParams, "device")


@dataclass(frozen=True)
class TeacherParams(NetworkTraining):
    """How the teacher is trained."""

    steps: int = declared(TrainParameters, "steps", default=600)


@dataclass(frozen=True)
class StudentParams(NetworkTraining):
    """How the student is distilled."""

    scale: str = declared(NetworkTraining, "scale", default="edge")
    steps: int = declared(TrainParameters, "steps", default=900)
    repeat_after: int | None = declared(TrainParameters, "repeat_after", default=150)


def peaknet_teacher(
    store: Store, keys: Sequence[str], *, overrides: Mapping[str, Any] | None = None
) -> StageResult:
    """The teacher network, trained on the labels of the training runs, its threshold chosen on the validation runs."""
    params = pipeline_parameters(store, "teacher", TeacherParams, overrides)

    def train(source: Sequence[Crop], validation: Sequence[ValidationPanel], state: Path) -> TrainResult:
        model = build_model(named_scale(params.scale), seed=params.seed)
        with progress_bar("training the teacher", unit="step") as bar:
            return train_model(
                model,
                source,
                params=training_parameters(params),
                validation=validation,
                transforms=TransformParameters(),
                device=str(choose_device(params.device)),
                state_folder=state,
                progress=lambda p: bar(p.step, p.n_steps),
            )

    return _train_stage(store, "peaknet_teacher", "teacher", params, train, inputs=[])


PEAKNET_TEACHER_ASSET = Asset(
    peaknet_teacher,
    job=IMPROVE,
    output=lambda store, scope: newest_path(store, "teacher"),
    deps=("training_set",),
    per_run=False,
    kinds=("pytorch",),
    parameters=TeacherParams,
    checks=("learned_something",),
    blocking=("learned_something",),
    pool="gpu",
)


def peaknet_student(
    store: Store, keys: Sequence[str], *, overrides: Mapping[str, Any] | None = None
) -> StageResult:
    """The student network, distilled from the teacher's logits, registered as a new version: the next challenger."""
    params = pipeline_parameters(store, "student", StudentParams, overrides)

    def train(source: Sequence[Crop], validation: Sequence[ValidationPanel], state: Path) -> TrainResult:
        teacher = read_checkpoint(newest_model(store, "teacher"))
        with progress_bar("distilling the student", unit="step") as bar:
            return distill_student(
                build_model(named_scale(params.scale), seed=params.seed),
                teacher.model,
                source,
                params=training_parameters(params),
                validation=validation,
                transforms=TransformParameters(),
                normalisation=teacher.normalisation,
                device=str(choose_device(params.device)),
                state_folder=state,
                progress=lambda p: bar(p.step, p.n_steps),
            )

    inputs = [newest_path(store, "teacher")]
    return _train_stage(store, "peaknet_student", "student", params, train, inputs=inputs)


PEAKNET_STUDENT_ASSET = Asset(
    peaknet_student,
    job=IMPROVE,
    output=lambda store, scope: newest_path(store, "student"),
    deps=("training_set", "peaknet_teacher"),
    per_run=False,
    kinds=("pytorch",),
    parameters=StudentParams,
    checks=("learned_something",),
    blocking=("learned_something",),
    pool="gpu",
)


def training_parameters(params: NetworkTraining) -> TrainParameters:
    """Return the part of a network's parameters that the training loop takes."""
    return TrainParameters(**{item.name: getattr(params, item.name) for item in fields(TrainParameters)})


def _train_stage(
    store: Store, stage: str, name: str, params: NetworkTraining, train: Any, *, inputs: Sequence[Path]
) -> StageResult:
    def build(recipe: Recipe) -> StageResult:
        table = read_table(training_set_path(store, "all"), SPLIT)
        crops = cut_crops(store, table, params)
        validation = cut_validation(store, table, params)
        state = store.root / "store" / "training_state" / f"{name}-{recipe.digest()}"
        started = time.perf_counter()
        result = train(crops, validation, state)
        folder = _register(store, name, params, result, recipe, seconds=time.perf_counter() - started)
        shutil.rmtree(state, ignore_errors=True)
        return _train_result(store, folder, result, n_crops=len(crops))

    files = [training_set_path(store, "all"), manifest_file(store), *inputs, *settings_inputs(store)]
    return make_stage(stage, parameters=params.to_dict(), inputs=files, build=build)


def cut_crops(store: Store, table: SplitTable, params: NetworkTraining) -> list[Crop]:
    """Cut the training crops out of the training runs' frames, balanced between peaks and hard background."""
    runs, frames = _cached_runs(store, table, "train")
    settings = CropParams(size=params.crop_size, per_epoch=params.crops)
    dataset = CropDataset(runs, settings, frames=frames, seed=params.seed)
    samples = (dataset[i] for i in range(len(dataset)))
    return [Crop(s.image, s.good, s.label) for s in samples]


def cut_validation(store: Store, table: SplitTable, params: NetworkTraining) -> list[ValidationPanel]:
    """Take whole panels of the validation runs, evenly over their frames."""
    runs, frames = _cached_runs(store, table, "validate")
    if not runs:
        raise LabelError(
            "no validation run", where="training_set", remedy="Label more runs, or name one to validate."
        )
    dataset = PanelDataset(runs, frames=frames, shuffle=True, seed=params.seed)
    chosen = range(min(len(dataset), params.validation_panels))
    return [panel_from_crop(Crop(s.image, s.good, s.label)) for s in (dataset[i] for i in chosen)]


def _cached_runs(store: Store, table: SplitTable, subset: str) -> tuple[list[CachedRun], list[Any]]:
    rows = table[table["subset"] == subset]
    runs, frames = [], []
    for (key, labels), part in rows.groupby(["run", "labels"], sort=True):
        context = read_context(store, str(key))
        path = labels_path(store, str(key)) if labels == CLASSICAL else curated_labels_path(store, str(key))
        bad_pixels = read_bad_pixels(store, str(key))
        with open_raw(context) as run, counting_bar(f"packing {key}", len(part)) as count:
            runs.append(
                cache_run(
                    str(key),
                    path,
                    frame_reader(run),
                    bad_pixels=bad_pixels,
                    cache_root=store.root / "store" / "cache",
                    usable=run.usable,
                    progress=count,
                )
            )
        frames.append(part["frame"].to_numpy(np.int64))
    return runs, frames


def _register(
    store: Store, role: str, params: NetworkTraining, result: TrainResult, recipe: Recipe, *, seconds: float
) -> Path:
    """Register a trained network: weights, configuration, card, recipe and the manifest of what taught it."""
    manifest = read_manifest(store)
    parents = [newest_model(store, "teacher")] if role == "student" else []

    def write(folder: Path, version: str) -> None:
        card = ModelCard(
            name=version,
            step=result.step,
            threshold=result.threshold,
            scores=result.scores.to_dict() if result.scores else {},
            training_manifest=str(manifest["hash"]),
            code_version=code_version(),
            seed=params.seed,
            training=params.to_dict(),
            teacher=parents[0].name if parents else "",
            made=now(),
        )
        write_checkpoint(folder, result.model, card=card)
        taught = keep_manifest(store, folder)
        inputs = [taught, *(parent / CARD_FILE for parent in parents)]
        own = make_recipe(recipe.stage, code=recipe.code, parameters=recipe.parameters, inputs=inputs)
        write_recipe(folder / CARD_FILE, own, seconds=seconds, figures={"model": version})

    folder = register(store.models, role, write)
    write_newest(store, role, folder)
    return folder


def _train_result(store: Store, folder: Path, result: TrainResult, *, n_crops: int) -> StageResult:
    scores = result.scores.to_dict() if result.scores else {}
    figures: dict[str, Any] = {
        "model": folder.name,
        "parameters": count_parameters(result.model.config)["total"],
        "steps": result.step,
        "crops": n_crops,
        "final_loss": float(result.history[-1]["loss"]),
        "threshold": result.threshold,
        **{
            f"validation_{k}": scores[k]
            for k in ("precision", "recall", "f1", "n_true", "n_found")
            if k in scores
        },
    }
    recall = float(scores.get("recall", 0.0))
    check = Check(
        "learned_something",
        recall >= LEAST_RECALL,
        f"validation recall {recall:.2f}, at least {LEAST_RECALL}",
    )
    plots = {"learning_curves": plot_losses(result.history, title=folder.name)}
    role = folder.name.rpartition("-v")[0]
    return StageResult(newest_path(store, role), figures, plots=plots, checks=(check,))
