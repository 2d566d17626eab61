"""Where everything lies under the data root: the only place that knows the layout."""

from dataclasses import dataclass
from pathlib import Path

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.store.keys import RunKey, parse_key


@dataclass(frozen=True)
class Store:
    """The data root: raw runs go in under ``raw/<experiment>/``; the rest is made."""

    root: Path

    @property
    def raw_root(self) -> Path:
        """Folder with one folder of raw runs per experiment."""
        return self.root / "raw"

    @property
    def models(self) -> Path:
        """Folder of the model registry."""
        return self.root / "models"

    @property
    def report(self) -> Path:
        """Folder of plots and the HTML report."""
        return self.root / "report"

    @property
    def dagster_home(self) -> Path:
        """Home of the embedded Dagster instance."""
        return self.root / "dagster_home"

    def experiment_folder(self, key: RunKey) -> Path:
        """Folder with the raw runs, geometry and cell of the run's experiment."""
        return self.raw_root / key.experiment

    def table(self, stage: str, key: str | RunKey) -> Path:
        """Parquet table of a stage for one run, or ``all``."""
        return self.file(stage, key, ".parquet")

    def file(self, stage: str, key: str | RunKey, suffix: str) -> Path:
        """Any other output of a stage for one run, or ``all``."""
        name = str(key)
        if name != "all":
            parse_key(name)
        return self.root / "store" / stage / f"{name}{suffix}"

    def confine(self, path: Path, folder: Path) -> Path:
        """Return the resolved path, provided that it lies inside ``folder``.

        Raises
        ------
        ParameterError
            A path from a configuration file leads out of its folder.

        """
        resolved = (folder / path).resolve()
        if not resolved.is_relative_to(folder.resolve()):
            raise ParameterError(
                "path leads out of its folder", where=path, expected=f"a path inside {folder}", found=resolved
            )
        return resolved
