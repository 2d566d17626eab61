"""The parameter set of every section of ``experiment.yaml``, and the check of the whole file."""

from collections.abc import Iterator, Mapping

from peaknet_pipeline.diagnosis_params import DiagnosisParams
from peaknet_pipeline.errors import ParameterError
from peaknet_pipeline.indexing.blind import BlindParams
from peaknet_pipeline.indexing.examine import CellCheckParams
from peaknet_pipeline.indexing.geometry_search import GeometrySearchParams
from peaknet_pipeline.indexing.integrate import IntegrateParams
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams
from peaknet_pipeline.indexing.second_look.run_params import RunSecondLookParams
from peaknet_pipeline.labels.curate import CurationParams
from peaknet_pipeline.labels.rasterize import RasterParams
from peaknet_pipeline.merging.parameters import RunMergeParams
from peaknet_pipeline.metrics import MetricParams
from peaknet_pipeline.params import Parameters, did_you_mean
from peaknet_pipeline.peaks.classical import CLASSICAL
from peaknet_pipeline.peaks.fit_params import FitParams
from peaknet_pipeline.peaks.match import MatchParams
from peaknet_pipeline.peaks.scan import ScanStageParams
from peaknet_pipeline.runs.bad_pixels import BadPixelParams
from peaknet_pipeline.runs.calibrate import CalibrationParams
from peaknet_pipeline.runs.make_mask import MaskParams
from peaknet_pipeline.store.group_rules import GROUPS, group_problems
from peaknet_pipeline.store.raw_folder import mapped_files
from peaknet_pipeline.store.settings import ROOTS
from peaknet_pipeline.store.settings_text import SettingsText

SECTIONS: Mapping[str, type[Parameters]] = {
    **{finder.section: finder.parameters for finder in CLASSICAL.values()},
    "scan": ScanStageParams,
    "index": IndexParams,
    "match": MatchParams,
    "fit": FitParams,
    "labels": RasterParams,
    "cell_check": CellCheckParams,
    "curation": CurationParams,
    "prediction": PredictParams,
    "integration": IntegrateParams,
    "merge": RunMergeParams,
    "metrics": MetricParams,
    "bad_pixels": BadPixelParams,
    "diagnosis": DiagnosisParams,
    "calibration": CalibrationParams,
    "mask": MaskParams,
    "cell_search": BlindParams,
    "refine_geometry": GeometrySearchParams,
    "second_look": RunSecondLookParams,
}
"""Parameter sections that ``experiment.yaml`` may hold."""

TEXTS = ("geometry", "cell", "calibration_file", "data_path")
"""Names of files and places that it may hold."""

ENGINES = ("lattice", "indexamajig")
"""Indexing engines that it may name: the embedded one, or CrystFEL's."""

CHOICES: Mapping[str, tuple[str, ...]] = {"engine": ENGINES, "classical_finder": tuple(CLASSICAL)}
"""What it may choose; the first is taken where nothing is chosen."""

SETTINGS = (*TEXTS, *CHOICES, "runs", GROUPS, ROOTS)
"""What it may hold besides sections."""


def settings_problems(text: SettingsText) -> Iterator[ParameterError]:
    """Yield everything that is wrong with an ``experiment.yaml``, each with its line: unknown names, types, ranges."""
    yield from text.name_problems((*SETTINGS, *SECTIONS))
    for name, cls in SECTIONS.items():
        yield from text.section_problems(name, cls)
    for name in TEXTS:
        value = text.values.get(name)
        if value is not None and not isinstance(value, str):
            yield ParameterError(
                f"{name} is no name", where=text.where(name), expected="a text", found=repr(value)
            )
    for name, choices in CHOICES.items():
        value = text.values.get(name, choices[0])
        if value not in choices:
            near, expected = did_you_mean(value, choices), f"one of {choices}"
            yield ParameterError(
                f"unknown {name}", where=text.where(name), expected=expected, found=value, remedy=near
            )
    if "calibration" in text.values and text.values.get("calibration_file") is None:
        expected = "calibration_file: constants.h5"
        yield ParameterError(
            "calibration without constants", where=text.where("calibration"), expected=expected
        )
    yield from group_problems(text)
    try:
        mapped_files(text, ())
    except ParameterError as error:
        yield error
