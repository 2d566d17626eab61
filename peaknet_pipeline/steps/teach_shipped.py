"""The weights that come with the package: trained on random simulated experiments, from one seed."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import logit

from peaknet_pipeline.infer.decode import decode_frames
from peaknet_pipeline.learn.checkpoint import SHIPPED_FOLDER, ModelCard, write_checkpoint
from peaknet_pipeline.learn.config import named_scale
from peaknet_pipeline.learn.crops import ValidationPanel
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.normalise import NormaliseParameters
from peaknet_pipeline.learn.recipe import TrainParameters
from peaknet_pipeline.learn.train import Progress, train_model
from peaknet_pipeline.learn.transforms import TransformParameters
from peaknet_pipeline.learn.validate import ValidationParameters, validate_model
from peaknet_pipeline.steps.network_params import InferenceParams
from peaknet_pipeline.steps.truth_crops import cut_windows, draw_frames, make_panel, store_crops
from peaknet_pipeline.steps.truth_windows import TeachingParameters
from peaknet_pipeline.types import Float32Array

SHIPPED_NAME = "general"

VALIDATION_SEEDS = range(900_000_000, 900_000_060)
"""Simulator seeds of the experiments on which the threshold is chosen; no training set reaches them."""

VALIDATION_SIDE = 384

TEACHING = TeachingParameters(n_experiments=700, crops_per_frame=20, near_spots=0.7)

TRAINING = TrainParameters(
    steps=10_000,
    batch_size=16,
    learning_rate=2.5e-3,
    warmup_steps=200,
    ema_decay=0.998,
    validate_every=1_000,
    final_rate=0.01,
    gamma=0.0,
    alpha_peak=0.5,
    alpha_background=0.5,
    lone_sigma=3.0,
    blocks_per_crop=16,
    background_blocks=2,
    candidate_sigma=2.4,
)

TRANSFORMS = TransformParameters()

VALIDATION = ValidationParameters(
    thresholds=tuple(n / 20 for n in range(4, 17)),
    least_precision=0.85,
    min_neighbour=InferenceParams().min_neighbour,
)


INDEXING_THRESHOLD = 0.1
"""Threshold of the shipped network: about where most validation frames index; the precise one is among its scores."""


@dataclass(frozen=True)
class ShippedRecipe:
    """All settings of the shipped network."""

    scale: str = "local"
    teaching: TeachingParameters = TEACHING
    training: TrainParameters = TRAINING
    transforms: TransformParameters = TRANSFORMS
    validation: ValidationParameters = VALIDATION
    threshold: float = INDEXING_THRESHOLD


def train_shipped(
    work: Path,
    folder: Path,
    *,
    recipe: ShippedRecipe | None = None,
    progress: Callable[[Progress], None] | None = None,
    simulating: Callable[[int, int], None] | None = None,
) -> Path:
    """Train the general network on simulated experiments and write it as a checkpoint.

    Parameters
    ----------
    work : Path
        Where crops and the training state are kept; a second call goes on from there.
    folder : Path
        The checkpoint's folder.
    recipe : ShippedRecipe, optional
        Scale, teaching material, training; everything follows from the seeds in it.
    progress, simulating : callable, optional
        Told after every step, and (done, all) after every simulated experiment.

    Returns
    -------
    Path
        The checkpoint's folder.

    """
    recipe = recipe or ShippedRecipe()
    crops = store_crops(work, recipe.teaching, progress=simulating)
    result = train_model(
        build_model(named_scale(recipe.scale), seed=recipe.training.seed),
        crops,
        params=recipe.training,
        transforms=recipe.transforms,
        state_folder=work / f"state-{recipe.scale}",
        progress=progress,
    )
    panels = validation_panels(recipe.teaching)
    scores = validate_model(
        result.model, panels, NormaliseParameters(), recipe.validation, decode_as_inference
    )
    card = ModelCard(
        name=folder.name,
        step=result.step,
        threshold=recipe.threshold,
        scores=scores.to_dict(),
        training_manifest=recipe.teaching.digest(),
        seed=recipe.training.seed,
        training=recipe.training.to_dict(),
        notes={"teaching": recipe.teaching.to_dict(), "transforms": recipe.transforms.to_dict()},
    )
    return write_checkpoint(folder, result.model, card=card)


def decode_as_inference(probability: Float32Array, panel: ValidationPanel, threshold: float) -> Float32Array:
    """Return the centres (n, 2) of a panel's peaks, decoded with inference's defaults."""
    decode, _ = InferenceParams().parts()
    logits = logit(np.clip(probability, 1e-6, 1 - 1e-6))
    peaks = decode_frames(
        panel.image[None, None],
        logits[None, None].astype(np.float32),
        ~panel.good[None],
        threshold=threshold,
        params=decode,
    )
    return peaks[["ss", "fs"]].to_numpy(np.float32)


def validation_panels(teaching: TeachingParameters) -> list[ValidationPanel]:
    """Simulate experiments that never train: two windows of two frames each, most of them around reflections."""
    params = TeachingParameters.from_mapping(
        {
            **teaching.to_dict(),
            "frames_per_experiment": 2,
            "crops_per_frame": 2,
            "crop_side": VALIDATION_SIDE,
        }
    )
    panels: list[ValidationPanel] = []
    for seed in VALIDATION_SEEDS:
        generator = np.random.default_rng((seed, 29))
        for frame in draw_frames(seed, params):
            panels += [make_panel(window, params) for window in cut_windows(frame, params, generator)]
    return panels


def main(arguments: list[str]) -> None:
    """Train into the package's own weights folder; tell the loss on standard error."""

    def tell(progress: Progress) -> None:
        if progress.step % 100 == 0:
            sys.stderr.write(f"step {progress.step} of {progress.n_steps}: loss {progress.loss:.6f}\n")

    train_shipped(Path(arguments[0]), SHIPPED_FOLDER / SHIPPED_NAME, progress=tell)


if __name__ == "__main__":
    main(sys.argv[1:])
