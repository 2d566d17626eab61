"""Indexing of a run's peaks, by whichever finder, with its false-index control and predicted reflections."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peaknet_pipeline.errors import RunError
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.indexing.cell import read_cell
from peaknet_pipeline.indexing.control import IndexControl, false_index_control
from peaknet_pipeline.indexing.integrate import integrate_reflections
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.indexing.parameters import IndexParams
from peaknet_pipeline.indexing.predict import PredictParams, predict_reflections
from peaknet_pipeline.plots import plot_lattices
from peaknet_pipeline.runs.run import Run
from peaknet_pipeline.stages.context import RunContext, open_raw, read_context
from peaknet_pipeline.stages.finding import peaks_path
from peaknet_pipeline.stages.ingest import read_bad_pixels, statistics_path
from peaknet_pipeline.stages.making import make_stage
from peaknet_pipeline.stages.progress import Progress, progress_bar
from peaknet_pipeline.stages.provenance import Recipe
from peaknet_pipeline.stages.result import Check, StageResult
from peaknet_pipeline.stages.store import Store
from peaknet_pipeline.tables import empty_table, read_table, read_table_metadata, write_table
from peaknet_pipeline.types import INDEX, PEAKS, REFLECTIONS, Float64Array, Geometry, IndexTable, ReflectionTable, UnitCell
