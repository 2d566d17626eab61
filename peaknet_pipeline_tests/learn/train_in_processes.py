"""Started by torchrun in a test: train a few steps together and write down what each process saw."""

import json
import sys
from pathlib import Path

import numpy as np

from peaknet_pipeline.learn.config import SCALES
from peaknet_pipeline.learn.crops import Crop
from peaknet_pipeline.learn.distributed import process_group, rank_and_size
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.recipe import TrainParameters
from peaknet_pipeline.learn.train import draw_crops, train_model
from peaknet_pipeline_tests.learn.toys import ToyCrops

PER_PROCESS = TrainParameters(steps=4, batch_size=4, warmup_steps=0, accumulation=2)
ONE_PROCESS = TrainParameters(steps=4, batch_size=8, warmup_steps=0, accumulation=2)


def even_crops() -> list[Crop]:
    """Crops without "ignore", so that the mean of two halves is the mean of the whole."""
    toys = ToyCrops(32)
    return [
        Crop(c.image, np.ones_like(c.good), np.where(c.label == 1, 1, 0).astype(np.uint8))
        for c in map(toys.__getitem__, range(32))
    ]


def main(folder: Path) -> None:
    """Train under torchrun and write this rank's losses, weights and first crops."""
    with process_group() as device:
        crops = even_crops()
        result = train_model(build_model(SCALES["edge-small"]), crops, params=PER_PROCESS, device=device)
        rank, _ = rank_and_size()
        seen = {
            "losses": [row["loss"] for row in result.history],
            "weights": [float(p.double().sum()) for p in result.model.parameters()],
            "indices": draw_crops(crops, 0, PER_PROCESS).image.sum(dim=(1, 2)).tolist(),
        }
        (folder / f"rank{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
