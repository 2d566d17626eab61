"""The compiled CPU path of networks of cells against the network itself."""

import numpy as np
import pytest
import torch

from peaknet_pipeline.errors import ModelError
from peaknet_pipeline.learn.config import SCALES
from peaknet_pipeline.learn.host.dense import DenseOnCpu
from peaknet_pipeline.learn.model import build_model
from peaknet_pipeline.learn.normalise import normalise


@pytest.mark.parametrize("scale", ["edge", "edge-large", "local"])
@pytest.mark.parametrize("shape", [(2, 64, 96), (3, 61, 39)])
@pytest.mark.parametrize(
    ("dtype", "atol", "rtol"), [(torch.bfloat16, 0.06, 0.02), (torch.float32, 1e-4, 1e-4)]
)
def test_cpu_path_gives_the_networks_logits(
    scale: str, shape: tuple[int, int, int], dtype: torch.dtype, atol: float, rtol: float
) -> None:
    rng = np.random.default_rng(0)
    images = rng.poisson(6, shape).astype(np.uint16)
    images[:, 20:23, 20:23] += 40
    good = rng.random(shape) > 0.05
    model = build_model(SCALES[scale], seed=2).eval()
    fast = DenseOnCpu(model, dtype=dtype)
    with torch.inference_mode():
        slow = model(normalise(torch.from_numpy(images), torch.from_numpy(good)))[:, 0].numpy()
    logits = fast.logits(images, good)
    np.testing.assert_allclose(logits[good], slow[good], atol=atol, rtol=rtol)
    assert (logits[~good] == -100).all()
    assert next(model.parameters()).dtype == torch.float32


def test_only_networks_of_cells_have_it() -> None:
    with pytest.raises(ModelError, match="not a network of cells"):
        DenseOnCpu(build_model(SCALES["yocto"]))
