"""Labels of the second generation: of curated frames, from the network's own peaks and their lattices."""

from collections.abc import Mapping
from typing import Any

from peaknet_pipeline.indexing.control import MAX_FALSE_RATE, ControlRecord
from peaknet_pipeline.peaks.match import MatchParams
from peaknet_pipeline.plots.fits import plot_labels
from peaknet_pipeline.provenance import Recipe, network_of, origin_of
from peaknet_pipeline.schemas import CURATION, FITS, FRAME_MATCHES, MATCHES, PEAKS, Schema
from peaknet_pipeline.stages.cell_check import cell_holds
from peaknet_pipeline.stages.peak_labels import (
    audit_check,
    label_figures,
    label_inputs,
    label_parameters,
    label_reflections,
    label_run,
)
from peaknet_pipeline.store.asset import INFER, MISSING, Asset
from peaknet_pipeline.store.layout import Store
from peaknet_pipeline.store.make_stage import make_stage
from peaknet_pipeline.store.paths import (
    curated_labels_path,
    curation_path,
    peaks_path,
    read_control,
)
from peaknet_pipeline.store.run_files import read_context
from peaknet_pipeline.store.stage_result import Check, StageResult
from peaknet_pipeline.tables import read_table, write_table


def curated_labels(store: Store, key: str, *, overrides: Mapping[str, Any] | None = None) -> StageResult:
    """Labels of the candidates whose neural peaks index: the same matching, fits and limits, from the network's lattices."""
    context = read_context(store, key)
    params = label_parameters(context, overrides)
    output = curated_labels_path(store, key)
    peaks_file = peaks_path(store, key, "peaknet")

    def build(recipe: Recipe) -> StageResult:
        frames = set(read_table(curation_path(store, key), CURATION)["frame"])
        peaks = read_table(peaks_file, PEAKS)
        reflections = label_reflections(store, key, "peaknet")
        peaks, reflections = (t[t["frame"].isin(frames)].reset_index(drop=True) for t in (peaks, reflections))
        network = network_of(peaks_file)
        told = {"run": key, "recipe": recipe.digest(), "model": network["model"]}
        labelled = label_run(context, peaks, reflections, output, params, told)
        made: dict[str, tuple[Any, Schema]] = {
            "fits": (labelled.fits, FITS),
            "matches": (labelled.matches, MATCHES),
            "frame_matches": (labelled.frame_matches, FRAME_MATCHES),
        }
        tables = {name: store.table(f"curated_labels/{name}", key) for name in made}
        for name, (table, schema) in made.items():
            write_table(table, tables[name], schema, extra=origin_of(recipe, run=key, **network))
        figures = {"candidates": len(frames), **label_figures(labelled), "model": network["model"]}
        cell = cell_holds(context, "peaknet", params.cell_check)
        checks = (audit_check(labelled), lattices_hold(read_control(store, key, "peaknet")), cell)
        return StageResult(output, figures, tables, {"fits": plot_labels(labelled.fits, title=key)}, checks)

    inputs = [*label_inputs(context, "peaknet"), curation_path(store, key)]
    return make_stage("curated_labels", parameters=params.to_dict(), inputs=inputs, build=build)


CURATED_LABELS_ASSET = Asset(
    curated_labels,
    job=INFER,
    output=curated_labels_path,
    deps=("run_statistics", "peaknet_peaks", "peaknet_index", "curation"),
    kinds=("hdf5", "parquet"),
    parameters=MatchParams,
    tables=("fits", "matches", "frame_matches"),
    checks=("agrees_with_lmfit", "lattices_hold", "cell_holds"),
    blocking=("agrees_with_lmfit", "lattices_hold", "cell_holds"),
    automation=MISSING,
)


def lattices_hold(control: ControlRecord) -> Check:
    """Check that the lattices behind neural labels are real: the run's scrambled hits do not index."""
    counts = f"{control.n_indexed} of {control.n_scrambled} scrambled hits index"
    return Check(
        "lattices_hold", control.rate <= MAX_FALSE_RATE, f"{counts}; at most {MAX_FALSE_RATE:.1%} may"
    )
