"""What the asset of the network's peaks writes is chosen by its configuration."""

import h5py
import hdf5plugin  # noqa: F401
import numpy as np

from peaknet_pipeline.hits import hit_peaks
from peaknet_pipeline.orchestration.partitions import register_runs
from peaknet_pipeline.schemas import PEAKS
from peaknet_pipeline.store.paths import peaknet_path, segmentation_path
from peaknet_pipeline.tables import read_table
from peaknet_pipeline_tests.orchestration.conftest import FRAMES, KEYS, failure_text


def test_hits_only_with_images_and_masks_is_a_matter_of_configuration(fresh):
    key = KEYS[0]
    register_runs(fresh.instance, KEYS[:1])

    def infer(*assets, **config):
        config = {"ops": {"peaknet_peaks": {"config": config}}}
        result = fresh.materialize([*assets, "peaknet_peaks"], key, run_config=config)
        assert result.success, failure_text(result)
        event = result.get_asset_materialization_events()[-1]
        metadata = event.step_materialization_data.materialization.metadata
        return {name: entry.value for name, entry in metadata.items()}, read_table(
            peaknet_path(fresh.store, key), PEAKS
        )

    reduced, hits = infer(
        "raw_run", "run_statistics", hits_only=True, min_peaks=60, images="copy", segmentation=True
    )
    with h5py.File(segmentation_path(fresh.store, key)) as file:
        numbers = file["frame"][...]
    _, every = infer()
    counts = np.bincount(hit_peaks(every)["frame"], minlength=FRAMES)
    assert 0 < reduced["hits"] < np.count_nonzero(counts)
    np.testing.assert_array_equal(numbers, np.flatnonzero(counts >= 60))
    assert hits.equals(every[every["frame"].isin(numbers)].reset_index(drop=True))
    assert reduced["kept_fraction"] == round(len(numbers) / FRAMES, 4)
    assert 0 < reduced["bytes_kept"] < 1
    assert not segmentation_path(fresh.store, key).exists()
