"""Where each asset's output of a run lies, and how the small ones are read back."""

from pathlib import Path

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.hdf5.attributes import read_attribute
from peaknet_pipeline.hdf5.files import LinkedFiles
from peaknet_pipeline.indexing.control import ControlRecord
from peaknet_pipeline.records import make_record, parse_json, read_json
from peaknet_pipeline.runs.masks import read_mask
from peaknet_pipeline.runs.rings import RingParams
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.types import BoolArray

FINDERS = ("classical", "peaknet")
"""Whose peaks of a run are kept: those of the experiment's classical finder, and the network's."""


def peaks_path(store: Store, key: str, finder: str) -> Path:
    """Return where a run's peaks lie; ``finder`` is classical or peaknet."""
    return store.table(f"{finder}_peaks", key)


def classical_path(store: Store, key: str) -> Path:
    """Return where a run's classical peaks lie."""
    return peaks_path(store, key, "classical")


def peaknet_path(store: Store, key: str) -> Path:
    """Return where a run's neural peaks lie."""
    return peaks_path(store, key, "peaknet")


def segmentation_path(store: Store, key: str) -> Path:
    """Return where a run's segmentation masks lie, if they were asked for."""
    return store.file("peaknet_peaks", key, ".segmentation.h5")


def manifest_path(store: Store, key: str) -> Path:
    """Return where a run's manifest lies."""
    return store.file("raw_run", key, ".json")


def statistics_path(store: Store, key: str) -> Path:
    """Return where a run's statistics and bad pixels lie."""
    return store.file("run_statistics", key, ".h5")


def read_bad_pixels(store: Store, key: str) -> BoolArray:
    """Return a run's bad pixels, (n_panels, ss, fs), as its statistics found them."""
    path = statistics_path(store, key)
    if not path.is_file():
        raise RunError("no statistics", where=path, remedy="Materialize run_statistics for this run first.")
    return read_mask(path)[0]


def read_left_out_rings(store: Store, key: str) -> RingParams:
    """Return the rings on which a run's peaks don't count."""
    path = statistics_path(store, key)
    with LinkedFiles(path) as files:
        told = read_attribute(files.file, "left_out_rings", "{}")
        return RingParams.from_mapping(parse_json(told, where=path, error=RunError))


def index_path(store: Store, key: str, finder: str) -> Path:
    """Return where a run's lattices lie; ``finder`` is classical or peaknet."""
    return store.table(f"{finder}_index", key)


def classical_index_path(store: Store, key: str) -> Path:
    """Return where the lattices of a run's classical peaks lie."""
    return index_path(store, key, "classical")


def peaknet_index_path(store: Store, key: str) -> Path:
    """Return where the lattices of a run's neural peaks lie."""
    return index_path(store, key, "peaknet")


def reflections_path(store: Store, key: str, finder: str) -> Path:
    """Return where the reflections predicted from a run's lattices lie."""
    return store.table(f"{finder}_index/reflections", key)


def crystals_path(store: Store, key: str, finder: str) -> Path:
    """Return where lies what a run's reflections tell of each crystal."""
    return store.table(f"{finder}_index/crystals", key)


def merge_sums_path(store: Store, key: str) -> Path:
    """Return where lies what a run gives to the merged set."""
    return store.table("run_merge", key)


def merge_crystals_path(store: Store, key: str) -> Path:
    """Return where lies how a run's crystals were scaled."""
    return store.table("run_merge/crystals", key)


def merge_figures_path(store: Store, scope: str) -> Path:
    """Return where the figures of every experiment's merged set lie; ``scope`` is ``all``."""
    return store.table("merged", scope)


def merged_file(store: Store, experiment: str, suffix: str) -> Path:
    """Return where a file of an experiment's merged set lies."""
    return store.confine(Path(f"{experiment}{suffix}"), store.root / "store" / "merged" / "experiments")


def control_path(store: Store, key: str, finder: str) -> Path:
    """Return where the false-index control of a run lies."""
    return store.file(f"{finder}_index/control", key, ".json")


def read_control(store: Store, key: str, finder: str) -> ControlRecord:
    """Read the false-index control that was made with the lattices."""
    path = control_path(store, key, finder)
    if not path.is_file():
        raise RunError(
            "no false-index control", where=path, remedy=f"Materialize {finder}_index for this run first."
        )
    return make_record(ControlRecord, read_json(path, error=RunError), where=path, error=RunError)


def scan_path(store: Store, key: str) -> Path:
    """Return where a run's scan lies."""
    return store.table("finder_scan", key)


def comparison_path(store: Store, scope: str) -> Path:
    """Return where the last comparison lies."""
    return store.table("champion", scope)


def diagnosis_path(store: Store, key: str) -> Path:
    """Return where a run's causes lie, as a table; empty when nothing is wrong."""
    return store.table("diagnosis", key)


def diagnosis_text_path(store: Store, key: str) -> Path:
    """Return where the diagnosis lies in words: JSON with ``run``, ``text`` and ``findings``."""
    return store.file("diagnosis", key, ".json")


def refined_geometry_path(store: Store, key: str) -> Path:
    """Return where the geometry refined from a run lies."""
    return store.file("refined_geometry", key, ".geom")


def panel_residuals_path(store: Store, key: str) -> Path:
    """Return where the residuals of each panel before and after refinement lie."""
    return store.table("refined_geometry/panels", key)


def geometry_trend_path(store: Store, key: str) -> Path:
    """Return where a run's row of the geometry's trend lies."""
    return store.table("refined_geometry/trend", key)


def frame_groups_path(store: Store, key: str) -> Path:
    """Return where the group of each frame of a run lies."""
    return store.table("frame_groups", key)


def group_rates_path(store: Store, key: str) -> Path:
    """Return where the rates of a run's groups lie."""
    return store.table("group_rates", key)


def labels_path(store: Store, key: str) -> Path:
    """Return where a run's label maps lie."""
    return store.file("peak_labels", key, ".h5")


def fits_path(store: Store, key: str) -> Path:
    """Return where the fits behind a run's labels lie."""
    return store.table("peak_labels/fits", key)


def curated_labels_path(store: Store, key: str) -> Path:
    """Return where the label maps of a run's curated frames lie."""
    return store.file("curated_labels", key, ".h5")


def curated_fits_path(store: Store, key: str) -> Path:
    """Return where the fits behind a run's curated labels lie."""
    return store.table("curated_labels/fits", key)


def second_look_path(store: Store, key: str) -> Path:
    """Return where the lattices of a run's second look lie."""
    return store.table("second_look", key)


def second_look_rates_path(store: Store, key: str) -> Path:
    """Return where the rates with and without a run's second look lie."""
    return store.table("second_look/rates", key)


def second_look_record_path(store: Store, key: str) -> Path:
    """Return where the control and the model of a run's second look lie."""
    return store.file("second_look", key, ".json")


def curation_path(store: Store, key: str) -> Path:
    """Return where a run's candidates lie."""
    return store.table("curation", key)


def training_set_path(store: Store, scope: str) -> Path:
    """Return where the split lies."""
    return store.table("training_set", scope)


def summary_path(store: Store, scope: str) -> Path:
    """Return where all runs' rates lie."""
    return store.table("experiment_summary", scope)


def runs_path(store: Store, scope: str) -> Path:
    """Return where the summary leaves the table."""
    return store.table("experiment_summary/runs", scope)
