"""What a settings file says, and everything that is wrong with it."""

from pathlib import Path

from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.runs.inspect import Inspection
from peaknet_pipeline.store.raw_folder import SETTINGS_FILE

PIPELINE_FILE = "pipeline.yaml"


def is_settings_file(path: Path) -> bool:
    """Tell whether a file is one of settings, by its name."""
    return path.name in (SETTINGS_FILE, PIPELINE_FILE) and path.is_file()


def inspect_settings(path: Path) -> Inspection:
    """Describe an ``experiment.yaml`` or ``pipeline.yaml`` and list every problem with its line.

    Parameters of ``pipeline.yaml`` are checked by the stages that they belong to; here its sections are.
    """
    from peaknet_pipeline.store.sections import (
        settings_problems,
    )  # knows every stage's parameters: slow to import
    from peaknet_pipeline.store.settings import ROOTS, SECTIONS
    from peaknet_pipeline.store.settings_text import read_settings_text

    is_experiment = path.name == SETTINGS_FILE
    report = Inspection(path, "settings of an experiment" if is_experiment else "settings of the pipeline")
    try:
        text = read_settings_text(path)
        problems = settings_problems(text) if is_experiment else text.name_problems((*SECTIONS, ROOTS))
        report.problems += [str(problem) for problem in problems]
    except ParameterError as error:
        report.problems.append(str(error))
        return report
    report.facts |= {str(name): value for name, value in text.values.items()}
    return report
