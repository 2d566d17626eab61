"""The chain: every asset, in the order in which data flows. A new one is declared beside its function, and named here."""

from peaknet_pipeline.stages.champion import CHAMPION_ASSET
from peaknet_pipeline.stages.classical_peaks import CLASSICAL_PEAKS_ASSET
from peaknet_pipeline.stages.curated_labels import CURATED_LABELS_ASSET
from peaknet_pipeline.stages.curation import CURATION_ASSET
from peaknet_pipeline.stages.diagnosis import DIAGNOSIS_ASSET
from peaknet_pipeline.stages.experiment_summary import EXPERIMENT_SUMMARY_ASSET
from peaknet_pipeline.stages.finder_scan import FINDER_SCAN_ASSET
from peaknet_pipeline.stages.found_cell import FOUND_CELL_ASSET
from peaknet_pipeline.stages.frame_groups import FRAME_GROUPS_ASSET
from peaknet_pipeline.stages.group_rates import GROUP_RATES_ASSET
from peaknet_pipeline.stages.merged import MERGED_ASSET
from peaknet_pipeline.stages.peak_labels import PEAK_LABELS_ASSET
from peaknet_pipeline.stages.peaknet_peaks import PEAKNET_PEAKS_ASSET
from peaknet_pipeline.stages.raw_run import RAW_RUN_ASSET
from peaknet_pipeline.stages.refined_geometry import REFINED_GEOMETRY_ASSET
from peaknet_pipeline.stages.run_index import CLASSICAL_INDEX_ASSET, PEAKNET_INDEX_ASSET
from peaknet_pipeline.stages.run_merge import RUN_MERGE_ASSET
from peaknet_pipeline.stages.run_metrics import RUN_METRICS_ASSET
from peaknet_pipeline.stages.run_statistics import RUN_STATISTICS_ASSET
from peaknet_pipeline.stages.second_look import SECOND_LOOK_ASSET
from peaknet_pipeline.stages.teaching import PEAKNET_STUDENT_ASSET, PEAKNET_TEACHER_ASSET
from peaknet_pipeline.stages.training_set import TRAINING_SET_ASSET
from peaknet_pipeline.store.asset import Asset

CHAIN: tuple[Asset, ...] = (
    RAW_RUN_ASSET,
    FRAME_GROUPS_ASSET,
    RUN_STATISTICS_ASSET,
    CLASSICAL_PEAKS_ASSET,
    FINDER_SCAN_ASSET,
    FOUND_CELL_ASSET,
    CLASSICAL_INDEX_ASSET,
    REFINED_GEOMETRY_ASSET,
    DIAGNOSIS_ASSET,
    RUN_MERGE_ASSET,
    PEAK_LABELS_ASSET,
    TRAINING_SET_ASSET,
    PEAKNET_TEACHER_ASSET,
    PEAKNET_STUDENT_ASSET,
    CHAMPION_ASSET,
    PEAKNET_PEAKS_ASSET,
    PEAKNET_INDEX_ASSET,
    SECOND_LOOK_ASSET,
    RUN_METRICS_ASSET,
    GROUP_RATES_ASSET,
    CURATION_ASSET,
    CURATED_LABELS_ASSET,
    MERGED_ASSET,
    EXPERIMENT_SUMMARY_ASSET,
)
"""All assets, upstream first."""
