"""The manifest of the present training set: which labels teach, by content."""

from pathlib import Path
from typing import Any

from peaknet_pipeline.errors import LabelError
from peaknet_pipeline.provenance import Recipe, read_recipe, write_recipe
from peaknet_pipeline.records import read_json
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.paths import training_set_path
from peaknet_pipeline.tables import write_json

TRAINING_MANIFEST = "training_manifest.json"
"""What taught a model, in its folder: runs, label files by content, exclusions, curated frames."""


def manifest_file(store: Store) -> Path:
    """Return where the training set's manifest lies."""
    return store.file("training_set", "all", ".json")


def read_manifest(store: Store) -> dict[str, Any]:
    """Read the manifest of the present training set.

    Raises
    ------
    LabelError
        There is none, or it is damaged.

    """
    path = manifest_file(store)
    return read_json(path, error=LabelError, remedy="Materialize training_set first.")


def keep_manifest(store: Store, folder: Path) -> Path:
    """Copy the present manifest and its recipe into a model's folder: the next training set takes their place."""
    record = read_recipe(training_set_path(store, "all"))
    if record is None:
        raise LabelError(
            "the training set has no recipe",
            where=training_set_path(store, "all"),
            remedy="Materialize training_set.",
        )
    path = folder / TRAINING_MANIFEST
    write_json(path, read_manifest(store))
    recipe = Recipe(record["stage"], record["code"], record["parameters"], record["inputs"])
    write_recipe(path, recipe, seconds=float(record["seconds"]))
    return path
