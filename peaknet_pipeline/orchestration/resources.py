"""The data root as a Dagster resource."""

import os
from pathlib import Path

import dagster as dg

from peaknet_pipeline.store.layout import Store

DATA_VARIABLE = "PEAKNET_DATA"
"""Environment variable that names the data root; ``data`` in the working directory without it."""


def default_root() -> str:
    """Return the data root of this process."""
    return str(Path(os.environ.get(DATA_VARIABLE, "data")).absolute())


class StoreResource(dg.ConfigurableResource):
    """Where raw runs are read and everything else is written."""

    root: str

    def open(self) -> Store:
        """Return the layout of this root."""
        return Store(Path(self.root))
