"""The tables that the stages hand on: their columns with unit and meaning, each declared once.

``tables.make_table`` builds what these schemas declare, and every reader checks against them. Positions, frames and the
laboratory frame follow :mod:`peaknet_pipeline.types`.
"""

from dataclasses import dataclass
from typing import TypeAlias

import pandas as pd


@dataclass(frozen=True)
class Column:
    """One column of a table: name, Arrow-compatible numpy dtype name (or ``string``/``bool``), unit and meaning."""

    name: str
    dtype: str
    unit: str
    meaning: str
    nullable: bool = False


@dataclass(frozen=True)
class Schema:
    """The declared columns of a table, in order."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    def column_names(self) -> list[str]:
        """Return the column names in order."""
        return [column.name for column in self.columns]


PeakTable: TypeAlias = pd.DataFrame
IndexTable: TypeAlias = pd.DataFrame
SecondLookTable: TypeAlias = pd.DataFrame
ReflectionTable: TypeAlias = pd.DataFrame
CrystalTable: TypeAlias = pd.DataFrame
MergeSumTable: TypeAlias = pd.DataFrame
MergeCrystalTable: TypeAlias = pd.DataFrame
MergedTable: TypeAlias = pd.DataFrame
MergeShellTable: TypeAlias = pd.DataFrame
MergeFigureTable: TypeAlias = pd.DataFrame
MatchTable: TypeAlias = pd.DataFrame
FrameMatchTable: TypeAlias = pd.DataFrame
FitTable: TypeAlias = pd.DataFrame
LabelQualityTable: TypeAlias = pd.DataFrame
DataEngineTable: TypeAlias = pd.DataFrame
SplitTable: TypeAlias = pd.DataFrame
Scores: TypeAlias = pd.DataFrame
RunTable: TypeAlias = pd.DataFrame
CurationTable: TypeAlias = pd.DataFrame
DiagnosisTable: TypeAlias = pd.DataFrame

_FRAME = Column("frame", "int32", "", "frame number in the run, from 0")
_PANEL = Column("panel", "int16", "", "panel number in the stack, in the geometry's order")
_FS = Column("fs", "float32", "px", "fast-scan position in the panel, centre of the first pixel = 0.0")
_SS = Column("ss", "float32", "px", "slow-scan position in the panel, centre of the first pixel = 0.0")
_LATTICE = Column("lattice", "int16", "", "lattice number in the frame, from 0")
_HKL = tuple(Column(n, "int16", "", f"Miller index {n}") for n in ("h", "k", "l"))
_AXES = tuple(
    Column(f"{axis}star_{xyz}", "float64", "Å⁻¹", f"reciprocal axis {axis}*, laboratory {xyz}")
    for axis in "abc"
    for xyz in "xyz"
)

PEAKS = Schema(
    "peaks",
    "Bragg peaks found in a run, by whichever finder",
    (
        _FRAME,
        _PANEL,
        _FS,
        _SS,
        Column("intensity", "float32", "adu", "sum above the local background"),
        Column("max_intensity", "float32", "adu", "highest pixel above the local background"),
        Column("background", "float32", "adu", "local background per pixel"),
        Column("sigma", "float32", "adu", "standard deviation of the local background's pixels"),
        Column("snr", "float32", "", "intensity / sigma"),
        Column("n_pixels", "int32", "px", "pixels that belong to the peak"),
        Column("inv_d", "float32", "Å⁻¹", "resolution 1/d; NaN without a geometry", nullable=True),
        Column(
            "score",
            "float32",
            "",
            "the network's highest peak probability; NaN for classical finders",
            nullable=True,
        ),
    ),
)

INDEX = Schema(
    "lattices",
    "Crystal lattices found in a run, one row per lattice; frames without a lattice have no row",
    (
        _FRAME,
        _LATTICE,
        *_AXES,
        Column("n_peaks", "int32", "", "peaks in the frame that were offered to the indexer"),
        Column("n_explained", "int32", "", "peaks that this lattice explains"),
        Column(
            "residual",
            "float32",
            "Å⁻¹",
            "rms distance of the explained peaks from their reciprocal-lattice points",
        ),
        *(
            Column(
                f"shift_{xyz}_mm",
                "float32",
                "mm",
                f"detector shift in laboratory {xyz} refined for this lattice; NaN where it was kept",
                nullable=True,
            )
            for xyz in "xy"
        ),
    ),
)

SECOND_LOOK = Schema(
    "second_look",
    "Lattices by the sum of weak evidence, and that sum for the lattices of the list indexer; one row per lattice",
    (
        _FRAME,
        _LATTICE,
        *_AXES,
        Column("origin", "string", "", "who found it: list (the list indexer) or second look"),
        Column("score", "float32", "nat", "log-likelihood ratio of all predicted reflections against noise"),
        Column("n_predicted", "int32", "", "reflections predicted on good pixels, which the score sums over"),
        *(
            Column(
                f"shift_{xyz}_mm",
                "float32",
                "mm",
                f"detector shift in laboratory {xyz} that the score was highest at",
            )
            for xyz in "xy"
        ),
    ),
)

SECOND_LOOK_RATES = Schema(
    "second_look_rates",
    "Frames indexed with and without the second look, one row per finder, with the second look's own control",
    (
        Column("experiment", "string", "", "experiment name"),
        Column("run", "string", "", "partition key of the run"),
        Column("finder", "string", "", "whose peaks the list indexer had: classical or peaknet"),
        Column("frames", "int32", "", "frames processed"),
        Column("indexed", "int32", "", "frames with a lattice from the list of peaks"),
        Column("second_look_indexed", "int32", "", "further frames with a lattice by the second look"),
        Column("second_look_lattices", "int32", "", "lattices by the second look in all frames"),
        Column("indexing_yield", "float32", "", "indexed / frames", nullable=True),
        Column("second_look_yield", "float32", "", "(indexed + second_look_indexed) / frames", nullable=True),
        Column("second_look_searched", "int32", "", "frames without a lattice whose evidence was searched"),
        Column("second_look_copies", "int32", "", "scrambled copies searched as a control"),
        Column("second_look_highest", "float32", "nat", "highest score of a scrambled copy", nullable=True),
        Column("second_look_bar", "float32", "nat", "score from which a lattice is accepted"),
        Column(
            "second_look_false_limit",
            "float32",
            "",
            "largest false rate of a search that the control leaves possible, 95 % confidence",
        ),
    ),
)

REFLECTIONS = Schema(
    "reflections",
    "Reflections predicted from the lattices",
    (
        _FRAME,
        _LATTICE,
        *_HKL,
        _PANEL,
        _FS,
        _SS,
        Column("inv_d", "float32", "Å⁻¹", "resolution 1/d"),
        Column(
            "excitation_error",
            "float32",
            "Å⁻¹",
            "distance of the reciprocal-lattice point from the Ewald sphere, + outside",
        ),
        Column(
            "intensity", "float32", "adu", "background-subtracted sum; NaN before integration", nullable=True
        ),
        Column(
            "sigma",
            "float32",
            "adu",
            "standard error of the intensity; NaN before integration",
            nullable=True,
        ),
        Column("peak", "float32", "adu", "highest pixel of the disc, background included", nullable=True),
        Column("background", "float32", "adu", "mean of the background ring per pixel", nullable=True),
    ),
)

SNR_SHELLS = (
    ("snr_beyond_5", 1 / 5),
    ("snr_5_to_3_3", 1 / 3.3),
    ("snr_3_3_to_2_5", 1 / 2.5),
    ("snr_2_5_to_2", 1 / 2),
    ("snr_below_2", float("inf")),
)
"""Columns of mean I/σ by shell, each with the 1/d, Å⁻¹, at which its shell ends."""

CRYSTALS = Schema(
    "crystals",
    "What each lattice's integrated reflections tell of its crystal, one row per lattice",
    (
        _FRAME,
        _LATTICE,
        Column(
            "profile_radius",
            "float32",
            "Å⁻¹",
            "largest excitation error of the reflections that were predicted",
        ),
        Column("peak_inv_d", "float32", "Å⁻¹", "1/d that 98 % of the explained peaks lie within"),
        Column(
            "resolution_limit",
            "float32",
            "Å⁻¹",
            "1/d up to which integrated reflections hold signal; NaN where none do",
            nullable=True,
        ),
        Column("n_reflections", "int32", "", "reflections that were integrated"),
        Column("mean_snr", "float32", "", "mean I/σ of them", nullable=True),
        *(
            Column(name, "float32", "", f"mean I/σ {shell}", nullable=True)
            for (name, _), shell in zip(
                SNR_SHELLS,
                (
                    "of d > 5 Å",
                    "of d from 5 to 3.3 Å",
                    "of d from 3.3 to 2.5 Å",
                    "of d from 2.5 to 2 Å",
                    "of d < 2 Å",
                ),
                strict=True,
            )
        ),
    ),
)

PANEL_RESIDUALS = Schema(
    "panel_residuals",
    "How far spots lie from their predicted rays before and after a geometry's refinement, per panel",
    (
        _PANEL,
        Column("name", "string", "", "the panel's name in the geometry"),
        Column("n_spots", "int32", "", "explained spots on the panel"),
        Column("before_px", "float32", "px", "rms distance before; NaN without spots", nullable=True),
        Column("after_px", "float32", "px", "rms distance after; NaN without spots", nullable=True),
        Column("shift_x_px", "float32", "px", "laboratory x shift beyond the detector's common one"),
        Column("shift_y_px", "float32", "px", "laboratory y shift beyond the detector's common one"),
        Column("rotation_deg", "float32", "deg", "turn about the beam"),
    ),
)

GEOMETRY_TREND = Schema(
    "geometry_trend",
    "Where the detector is by a run's own frames, as against the geometry that came with the experiment; one row per run",
    (
        Column("experiment", "string", "", "experiment name"),
        Column("run", "string", "", "partition key of the run"),
        Column("begun_with", "string", "", "geometry file that the run was processed with"),
        Column(
            "freed",
            "string",
            "",
            "what was refined: search, place (shift and distance), tilt, panels; empty where the geometry stays",
        ),
        Column("frames_tried", "int32", "", "frames that were indexed for it"),
        Column("indexed_before", "int32", "", "of these, indexed with the geometry before"),
        Column("indexed_after", "int32", "", "of these, indexed with the geometry after"),
        *(
            Column(
                f"held_out_{when}_px",
                "float32",
                "px",
                f"rms distance of spots from their predicted rays {when}, in frames not refined from; NaN where it stays",
                nullable=True,
            )
            for when in ("before", "after")
        ),
        *(Column(f"shift_{xyz}_mm", "float64", "mm", f"shift in laboratory {xyz}") for xyz in "xyz"),
        *(Column(f"tilt_{xyz}_deg", "float64", "deg", f"tilt about laboratory {xyz}") for xyz in "xy"),
    ),
)

MATCHES = Schema(
    "matches",
    "One-to-one pairs of found peaks and predicted reflections",
    (
        _FRAME,
        Column("peak", "int64", "", "row of the found peak in the peak table"),
        Column("reflection", "int64", "", "row of the predicted reflection among those that may be labelled"),
        Column("distance", "float32", "px", "distance between the two"),
    ),
)

FRAME_MATCHES = Schema(
    "frame_matches",
    "How well found and predicted peaks agree, per frame",
    (
        _FRAME,
        Column("n_peaks", "int32", "", "found peaks"),
        Column("n_reflections", "int32", "", "predicted reflections strong enough to be labelled"),
        Column("n_matched", "int32", "", "one-to-one pairs within the distance"),
        Column("precision", "float32", "", "n_matched / n_peaks", nullable=True),
        Column("recall", "float32", "", "n_matched / n_reflections", nullable=True),
        Column("selected", "bool", "", "the frame is used for teaching"),
        Column("reason", "string", "", "why the frame was selected or left out"),
    ),
)

_FIT_NAMES = (
    ("amplitude", "adu", "height of the pseudo-Voigt above the plane"),
    ("centre_ss", "px", "slow-scan centre in the panel"),
    ("centre_fs", "px", "fast-scan centre in the panel"),
    ("sigma_ss", "px", "Gaussian width, slow scan"),
    ("sigma_fs", "px", "Gaussian width, fast scan"),
    ("gamma_ss", "px", "Lorentzian half width, slow scan"),
    ("gamma_fs", "px", "Lorentzian half width, fast scan"),
    ("eta", "", "Lorentzian fraction"),
    ("plane_a", "adu/px", "background slope, slow scan"),
    ("plane_b", "adu/px", "background slope, fast scan"),
    ("plane_c", "adu", "background at the patch centre"),
)

FITS = Schema(
    "fits",
    "Pseudo-Voigt + plane fits to labelled reflections",
    (
        _FRAME,
        _LATTICE,
        *_HKL,
        _PANEL,
        Column("inv_d", "float32", "Å⁻¹", "resolution 1/d of the reflection", nullable=True),
        Column("snr", "float32", "", "I/σ of the integrated reflection", nullable=True),
        *(Column(name, "float32", unit, meaning, nullable=True) for name, unit, meaning in _FIT_NAMES),
        *(
            Column(f"{name}_error", "float32", unit, f"standard error of {name}", nullable=True)
            for name, unit, _ in _FIT_NAMES
        ),
        Column("significance", "float32", "", "amplitude / its standard error at fixed shape", nullable=True),
        Column("reduced_chi2", "float32", "", "weighted reduced chi square", nullable=True),
        Column("n_pixels", "int32", "px", "pixels that entered the fit"),
        Column("flags", "int32", "", "bits that say what went wrong; 0 = accepted"),
        Column("accepted", "bool", "", "the fit is good enough to label pixels"),
    ),
)

LABEL_QUALITY = Schema(
    "label_quality",
    "A simulated run's labels against its truth: over all, per SNR band, per resolution shell; empty for real runs",
    (
        Column("kind", "string", "", "all, snr or shell: what low and high are limits of"),
        Column("low", "float32", "", "lower limit: SNR, or 1/d in Å⁻¹", nullable=True),
        Column("high", "float32", "", "upper limit; NaN for the last SNR band", nullable=True),
        Column(
            "n_true",
            "int32",
            "",
            "usable true reflections of labelled frames; of at least 5σ where kind is not snr",
        ),
        Column("n_found", "int32", "", "of these, labelled"),
        Column("recall", "float32", "", "n_found / n_true", nullable=True),
        Column("recall_low", "float32", "", "lower end of its 95 % interval", nullable=True),
        Column("recall_high", "float32", "", "upper end of its 95 % interval", nullable=True),
        Column("centre_error_px", "float32", "px", "median distance of label and truth", nullable=True),
        Column("n_labels", "int32", "", "labels, by their own I/σ or 1/d"),
        Column("n_true_labels", "int32", "", "of these, on a true reflection"),
        Column("precision", "float32", "", "n_true_labels / n_labels", nullable=True),
        Column("precision_low", "float32", "", "lower end of its 95 % interval", nullable=True),
        Column("precision_high", "float32", "", "upper end of its 95 % interval", nullable=True),
    ),
)

DATA_ENGINE = Schema(
    "data_engine",
    "What the data engine made, per run of the training set and resolution shell",
    (
        Column("experiment", "string", "", "experiment name"),
        Column("run", "string", "", "partition key of the run"),
        Column("subset", "string", "", "train, validate or test"),
        Column("inv_d_low", "float32", "Å⁻¹", "lower limit of the shell; the same shells for all runs"),
        Column("inv_d_high", "float32", "Å⁻¹", "upper limit of the shell"),
        Column("frames", "int32", "", "frames with a label in the shell"),
        Column("n_fitted", "int32", "", "reflections that were fitted"),
        Column("n_accepted", "int32", "", "of these, labelled"),
        Column("accepted_share", "float32", "", "n_accepted / n_fitted", nullable=True),
        Column("significance", "float32", "", "median significance of the labelled", nullable=True),
        Column("reduced_chi2", "float32", "", "median reduced χ² of the labelled", nullable=True),
        Column(
            "sigma_ss", "float32", "px", "median Gaussian width of the labelled, slow scan", nullable=True
        ),
        Column(
            "sigma_fs", "float32", "px", "median Gaussian width of the labelled, fast scan", nullable=True
        ),
    ),
)

SPLIT = Schema(
    "training_set",
    "Which labelled frames train, validate and test",
    (
        Column("experiment", "string", "", "experiment name"),
        Column("run", "string", "", "partition key of the run"),
        _FRAME,
        Column("subset", "string", "", "train, validate or test; a run is never divided"),
        Column("n_peaks", "int32", "", "labelled reflections in the frame"),
        Column("labels", "string", "", "whose peaks and lattice made the labels: classical or peaknet"),
        Column("curation", "string", "", "why curation picked the frame; empty where it did not"),
    ),
)

SCORES = Schema(
    "run_metrics",
    "Rates of one run with one finder, with all denominators",
    (
        Column("experiment", "string", "", "experiment name"),
        Column("run", "string", "", "partition key of the run"),
        Column("subset", "string", "", "what the run was used for: train, validate, test or unused"),
        Column("finder", "string", "", "classical or peaknet"),
        Column("frames", "int32", "", "frames processed"),
        Column("hits", "int32", "", "frames with at least min_peaks peaks"),
        Column("indexed", "int32", "", "frames with at least one accepted lattice"),
        Column("hit_rate", "float32", "", "hits / frames"),
        Column("indexing_rate", "float32", "", "indexed hits / hits", nullable=True),
        Column("indexing_yield", "float32", "", "indexed / frames"),
        Column(
            "false_index_rate",
            "float32",
            "",
            "azimuth-scrambled hits that index / scrambled hits",
            nullable=True,
        ),
        Column(
            "scrambled", "int32", "", "azimuth-scrambled frames tried: the denominator of false_index_rate"
        ),
        Column("peaks", "int64", "", "peaks in the run"),
        Column("mean_peaks", "float32", "", "peaks / frames"),
        Column(
            "resolution",
            "float32",
            "Å",
            "d that 5 % of the peaks in indexed frames lie beyond; NaN when nothing is indexed",
            nullable=True,
        ),
        Column("precision", "float32", "", "peaks that are true / peaks; NaN without truth", nullable=True),
        Column(
            "recall",
            "float32",
            "",
            "true reflections found / true reflections; NaN without truth",
            nullable=True,
        ),
        Column(
            "frames_per_second",
            "float32",
            "1/s",
            "frames per second of the finder, reading included",
            nullable=True,
        ),
        Column("residual", "float32", "Å⁻¹", "median residual of the lattices", nullable=True),
        Column("model", "string", "", "model version; empty for classical"),
        Column(
            "label_manifest", "string", "", "hash of the model's training set manifest; empty for classical"
        ),
        Column("parameters", "string", "", "hash of the finder's and indexer's parameters"),
        Column("code_version", "string", "", "version of this package"),
    ),
)

KEPT_FRAMES = Schema(
    "kept_frames",
    "What data reduction does with each frame of a run; one row per frame",
    (
        _FRAME,
        Column("kept", "bool", "", "the frame is kept"),
        Column("reason", "string", "", "why it is kept: lattice, hit or sampled; empty where it isn't"),
        Column("n_peaks", "int32", "", "peaks of the frame that count for a hit"),
        Column("indexed", "bool", "", "the frame has a lattice"),
    ),
)

FRAME_GROUPS = Schema(
    "frame_groups",
    "Which group each frame of a run belongs to; one row per frame",
    (_FRAME, Column("group_name", "string", "", "the group's name; empty where no rule holds")),
)

GROUP_RATES = Schema(
    "group_rates",
    "Rates of each group of a run's frames, one row per group and finder",
    (
        Column("experiment", "string", "", "experiment name"),
        Column("run", "string", "", "partition key of the run"),
        Column("group_name", "string", "", "the group's name; empty: frames of no group"),
        Column("finder", "string", "", "classical or peaknet"),
        Column("frames", "int32", "", "frames of the group"),
        Column("hits", "int32", "", "of these, with at least min_peaks peaks"),
        Column("indexed", "int32", "", "of the frames, with at least one accepted lattice"),
        Column("hit_rate", "float32", "", "hits / frames"),
        Column("indexing_rate", "float32", "", "indexed hits / hits", nullable=True),
        Column("indexing_yield", "float32", "", "indexed / frames"),
        Column("lattices", "int32", "", "lattices of the group's frames"),
        Column("mean_peaks", "float32", "", "peaks / frames"),
    ),
)

RUNS = Schema(
    "runs",
    "One row per run, from registered to scored",
    (
        Column("run", "string", "", "partition key of the run"),
        Column("experiment", "string", "", "experiment name"),
        Column("date", "string", "", "when the raw file was last written, UTC; empty without a file"),
        Column(
            "status",
            "string",
            "",
            "registered, partial, done, doubtful or stopped (a check did not pass), outdated, stale, failed, refused, missing",
        ),
        Column("stage", "string", "", "last stage made, or the one that failed"),
        Column("frames", "int32", "", "frames in the run; 0 before it was read"),
        Column(
            "frames_without_resolution",
            "int32",
            "",
            "frames without a possible photon energy or camera length: they keep their peaks and are not indexed",
        ),
        Column("hits", "int32", "", "frames with at least min_peaks peaks; 0 before peaks were found"),
        Column("indexed_hits", "int32", "", "hits with at least one accepted lattice; 0 before indexing"),
        Column(
            "indexed",
            "int32",
            "",
            "frames with at least one accepted lattice, hits or not; 0 before indexing",
        ),
        Column("hit_rate", "float32", "", "hits / frames", nullable=True),
        Column("indexing_rate", "float32", "", "indexed hits / hits", nullable=True),
        Column("indexing_yield", "float32", "", "indexed / frames", nullable=True),
        Column("mean_peaks", "float32", "", "peaks / frames", nullable=True),
        Column(
            "resolution",
            "float32",
            "Å",
            "d that 5 % of the peaks in indexed frames lie beyond",
            nullable=True,
        ),
        Column("background", "float32", "adu", "mean of the good pixels over the run", nullable=True),
        Column("bad_pixels", "float32", "", "bad pixels / pixels", nullable=True),
        Column(
            "finder",
            "string",
            "",
            "whose peaks the rates are of: peaknet where it was scored, else classical",
        ),
        Column("classical_hits", "int32", "", "hits of the classical finder, for comparison"),
        Column("classical_indexed", "int32", "", "frames indexed from classical peaks, for comparison"),
        Column("model", "string", "", "model version"),
        Column("label_manifest", "string", "", "hash of the model's training set manifest"),
        Column("parameters", "string", "", "hash of the finder's and indexer's parameters"),
        Column("code_version", "string", "", "version of this package that scored the run"),
        Column("seconds", "float32", "s", "time taken by all stages of the run"),
        Column("error", "string", "", "what failed or which checks did not pass; empty when nothing"),
    ),
)

CURATION = Schema(
    "curation",
    "Frames worth a look and a place in the next training set, the most useful first",
    (
        _FRAME,
        Column("rank", "int32", "", "place in the ranking, from 1"),
        Column("priority", "float32", "", "sum of the weights of the reasons"),
        Column("reason", "string", "", "why the frame is here, reasons separated by semicolons"),
        Column("n_classical", "int32", "", "peaks of the classical finder"),
        Column("n_neural", "int32", "", "peaks of the network"),
        Column("n_common", "int32", "", "peaks that both found"),
        Column("agreement", "float32", "", "2 n_common / (n_classical + n_neural)"),
        Column("classical_indexed", "bool", "", "the classical peaks led to a lattice"),
        Column("neural_indexed", "bool", "", "the neural peaks led to a lattice"),
        Column("confidence", "float32", "", "median score of the network's peaks", nullable=True),
    ),
)

MODEL_COMPARISON = Schema(
    "model_comparison",
    "Challenger and champion on the same frames of the validation runs, one row per model and run",
    (
        Column("model", "string", "", "model version"),
        Column("role", "string", "", "challenger or champion, before the decision"),
        Column("run", "string", "", "partition key of the validation run"),
        Column("frames", "int32", "", "frames processed"),
        Column("hits", "int32", "", "frames with at least min_peaks peaks"),
        Column("indexed", "int32", "", "frames with at least one accepted lattice"),
        Column("indexing_yield", "float32", "", "indexed / frames"),
        Column(
            "false_index_rate",
            "float32",
            "",
            "azimuth-scrambled hits that index / scrambled hits",
            nullable=True,
        ),
        Column(
            "scrambled", "int32", "", "azimuth-scrambled frames tried: the denominator of false_index_rate"
        ),
        Column("peaks", "int64", "", "peaks found in the frames"),
    ),
)

DIAGNOSIS = Schema(
    "diagnosis",
    "Why a run's hits don't index, the most likely cause first; empty when nothing is wrong",
    (
        Column("rank", "int32", "", "place, from 1"),
        Column("cause", "string", "", "what is wrong"),
        Column("share", "float32", "", "share of frames, hits or peaks that it concerns"),
        Column("told", "string", "", "the numbers that say so"),
        Column("remedy", "string", "", "what to do"),
    ),
)

SCAN = Schema(
    "finder_scan",
    "Every peakfinder8 setting of a grid, and the one in use, on hits and other frames of a run",
    (
        Column("threshold", "float64", "adu", "floor of the pixel limit"),
        Column("min_snr", "float64", "", "lowest SNR"),
        Column("min_pix", "int32", "px", "fewest pixels of a peak"),
        Column("max_pix", "int32", "px", "most pixels of a peak"),
        Column("local_bg_radius", "int32", "px", "half the radius of the local background's disc"),
        Column("frames", "int32", "", "frames tried"),
        Column("n_peaks", "int64", "", "peaks found in them"),
        Column("indexed", "int32", "", "frames with at least one accepted lattice"),
        Column("indexing_yield", "float64", "", "indexed / frames tried, three quarters of them likely hits"),
        Column("explained", "int64", "", "peaks that the lattices explain"),
        Column(
            "merit",
            "float64",
            "",
            "indexing yield; of equals, the better balance of peaks explained and found (F1)",
        ),
    ),
)

_RUN = Column("run", "string", "", "partition key of the run, or the name of its table")

MERGE_SUMS = Schema(
    "merge_sums",
    "What one run gives to the merged set: sums over its observations, per unique reflection and half of the crystals",
    (
        *_HKL,
        Column("half", "int16", "", "half of the crystals: 0 or 1"),
        Column("s0", "float64", "", "Σ w G²: weight w, expected intensity over that of the merged set G"),
        Column("s1", "float64", "", "Σ w G I; s1 / s0 is the merged intensity"),
        Column("s2", "float64", "", "Σ w I²"),
        Column("n", "float64", "", "observations"),
    ),
)

MERGE_CRYSTALS = Schema(
    "merge_crystals",
    "How each crystal was scaled, and why some were left out",
    (
        _RUN,
        _FRAME,
        _LATTICE,
        Column(
            "setting", "int16", "", "which of the settings that the lattice cannot tell apart; 0: as indexed"
        ),
        Column("n_reflections", "int32", "", "integrated reflections"),
        Column("scale", "float64", "", "scale k over the run's median"),
        Column("b_factor", "float64", "Å²", "relative B factor, over the run's median"),
        Column("correlation", "float64", "", "correlation with what the other crystals lead to expect"),
        Column("accepted", "bool", "", "the crystal is part of the merged set"),
        Column("reason", "string", "", "why it is not; empty where it is"),
    ),
)

MERGED = Schema(
    "merged",
    "Merged reflections, with those of both halves of the crystals",
    (
        *_HKL,
        Column("inv_d", "float32", "Å⁻¹", "resolution 1/d"),
        *(
            column
            for suffix, of in (("", "all crystals"), ("_1", "the first half"), ("_2", "the second half"))
            for column in (
                Column(f"intensity{suffix}", "float64", "adu", f"merged intensity of {of}", nullable=True),
                Column(
                    f"sigma{suffix}", "float64", "adu", f"standard error of intensity{suffix}", nullable=True
                ),
                Column(f"n{suffix}", "int32", "", f"observations in {of}"),
            )
        ),
    ),
)

MERGE_SHELLS = Schema(
    "merge_shells",
    "Figures of merged data by resolution shell, the last row over all, with standard errors",
    (
        Column("inv_d_low", "float64", "Å⁻¹", "lower limit of the shell"),
        Column("inv_d_high", "float64", "Å⁻¹", "upper limit of the shell"),
        Column("n_possible", "int32", "", "unique reflections that there are"),
        Column("n_unique", "int32", "", "of these, measured"),
        Column("completeness", "float64", "", "n_unique / n_possible", nullable=True),
        Column("multiplicity", "float64", "", "mean observations per measured reflection", nullable=True),
        *(
            column
            for name, meaning in (
                ("mean_snr", "mean I/σ of merged reflections"),
                ("cc_half", "correlation of the two halves' intensities, CC₁/₂"),
                ("cc_star", "√(2 CC₁/₂ / (1 + CC₁/₂)); nothing for a negative CC₁/₂"),
                ("r_split", "2^−½ Σ|I₁ − I₂| / ½ Σ(I₁ + I₂)"),
            )
            for column in (
                Column(name, "float64", "", meaning, nullable=True),
                Column(
                    f"{name}_error", "float64", "", f"standard error of {name} (jackknife)", nullable=True
                ),
            )
        ),
    ),
)

MERGE_FIGURES = Schema(
    "merge_figures",
    "One row per experiment: what its merged set is worth",
    (
        Column("experiment", "string", "", "experiment name"),
        Column("runs", "int32", "", "runs that were merged"),
        Column(
            "symmetry", "string", "", "space or point group; empty where the lattice's highest was assumed"
        ),
        Column("crystals", "int32", "", "crystals that were merged"),
        Column("rejected", "int32", "", "crystals that were left out"),
        Column("reflections", "int32", "", "measured unique reflections"),
        Column("resolution", "float64", "Å", "d of the outermost of them"),
        Column("completeness", "float64", "", "measured / possible unique reflections", nullable=True),
        Column("multiplicity", "float64", "", "mean observations per measured reflection", nullable=True),
        Column("mean_snr", "float64", "", "mean I/σ of merged reflections", nullable=True),
        *(
            column
            for name, meaning in (
                ("cc_half", "CC₁/₂"),
                ("cc_star", "CC*"),
                ("r_split", "R_split"),
            )
            for column in (
                Column(name, "float64", "", meaning, nullable=True),
                Column(f"{name}_error", "float64", "", f"standard error of {name}", nullable=True),
            )
        ),
        Column("wilson_b", "float64", "Å²", "B factor of the Wilson plot", nullable=True),
        Column("wilson_b_error", "float64", "Å²", "its standard error", nullable=True),
    ),
)

TRUTH_FRAMES = Schema(
    "truth_frames",
    "What was simulated in each frame",
    (
        _FRAME,
        Column("kind", "string", "", "blank, hit or multi"),
        Column("n_lattices", "int16", "", "crystals in the beam"),
        Column("background_scale", "float32", "", "factor on the run's background in this shot"),
        Column("photon_energy_ev", "float64", "eV", "photon energy of the shot"),
    ),
)

TRUTH_LATTICES = Schema(
    "truth_lattices", "Orientation of every simulated crystal", (_FRAME, _LATTICE, *_AXES)
)

TRUTH_REFLECTIONS = Schema(
    "truth_reflections",
    "Every simulated reflection on the detector",
    (
        _FRAME,
        _LATTICE,
        *_HKL,
        _PANEL,
        _FS,
        _SS,
        Column("inv_d", "float32", "Å⁻¹", "resolution 1/d"),
        Column("photons", "float32", "photons", "expected photons in the spot"),
        Column("background", "float32", "photons", "expected background per pixel under the spot"),
        Column("snr", "float32", "", "expected photons / expected noise of the spot's pixels"),
        Column("usable", "bool", "", "the spot lies on good, unsaturated pixels"),
    ),
)

SCHEMAS = {
    schema.name: schema
    for schema in (
        PEAKS,
        INDEX,
        SECOND_LOOK,
        SECOND_LOOK_RATES,
        REFLECTIONS,
        CRYSTALS,
        PANEL_RESIDUALS,
        GEOMETRY_TREND,
        MATCHES,
        FRAME_MATCHES,
        FITS,
        LABEL_QUALITY,
        DATA_ENGINE,
        SPLIT,
        SCORES,
        MODEL_COMPARISON,
        KEPT_FRAMES,
        FRAME_GROUPS,
        GROUP_RATES,
        RUNS,
        SCAN,
        DIAGNOSIS,
        CURATION,
        MERGE_SUMS,
        MERGE_CRYSTALS,
        MERGED,
        MERGE_SHELLS,
        MERGE_FIGURES,
        TRUTH_FRAMES,
        TRUTH_LATTICES,
        TRUTH_REFLECTIONS,
    )
}
"""Every declared table by name."""

MADE_WITH = {
    PEAKS.name: "peaknet find RUN --geometry GEOMETRY --out peaks.parquet",
    INDEX.name: "peaknet index PEAKS --geometry GEOMETRY --cell CELL --out lattices.parquet",
}
"""The command that makes a table of a kind, to type where one of another kind was given."""
