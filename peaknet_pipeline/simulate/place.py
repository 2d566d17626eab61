"""Experiments on any detector that a geometry describes."""

from collections.abc import Iterator
from dataclasses import replace

from peaknet_pipeline.errors import GeometryError
from peaknet_pipeline.geometry.maps import panel_shape
from peaknet_pipeline.simulate.detectors import DATA_PATH, ENERGY_PATH, MASK_PATH
from peaknet_pipeline.simulate.experiment import Experiment
from peaknet_pipeline.types import BadRegion, Geometry, Panel


def move_experiment(experiment: Experiment, geometry: Geometry) -> Experiment:
    """Return the experiment on another detector.

    Photon energy and gain are the geometry's where it states them; raw output and chips are left behind.

    Raises
    ------
    GeometryError
        The camera length is not a number.

    """
    stacked = stack_panels(geometry)
    energy = geometry.photon_energy_ev or experiment.beam.photon_energy_ev
    response = replace(
        experiment.response, adu_per_photon=stacked.panels[0].adu_per_photon, chip_ss=0, chip_fs=0
    )
    return replace(
        experiment,
        geometry=replace(stacked, photon_energy_ev=energy),
        beam=replace(experiment.beam, photon_energy_ev=energy),
        response=response,
        stages=None,
    )


def stack_panels(geometry: Geometry) -> Geometry:
    """Return the geometry with its panels one below the other in the slab, as simulated runs hold them.

    Raises
    ------
    GeometryError
        The camera length is not a number.

    """
    if any(not panel.clen_m > 0 for panel in geometry.panels):
        raise GeometryError(
            "the camera length is not known", where=geometry.source, remedy="State clen as a number."
        )
    height = geometry.stack_shape[1]
    panels = tuple(_restack(panel, number * height) for number, panel in enumerate(geometry.panels))
    pairs = list(zip(geometry.panels, panels, strict=True))
    return Geometry(
        panels=panels,
        bad_regions=tuple(moved for region in geometry.bad_regions for moved in _move_region(region, pairs)),
        photon_energy_ev=geometry.photon_energy_ev,
        photon_energy_path=ENERGY_PATH,
        data_path=DATA_PATH,
        mask_path=MASK_PATH,
        mask_good_bits=0,
        mask_bad_bits=0xFF,
    )


def _restack(panel: Panel, first_ss: int) -> Panel:
    height, width = panel_shape(panel)
    return replace(
        panel,
        min_fs=0,
        max_fs=width - 1,
        min_ss=first_ss,
        max_ss=first_ss + height - 1,
        stack_index=(),
        coffset_m=0.0,
        data_path=None,
    )


def _move_region(region: BadRegion, pairs: list[tuple[Panel, Panel]]) -> Iterator[BadRegion]:
    """Shift a region in data-set pixels along with its panel; one without a panel becomes one per panel."""
    if not region.is_fsss:
        yield region
        return
    for number, (old, new) in enumerate(pairs):
        if region.panel in (None, old.name):
            fs, ss = new.min_fs - old.min_fs, new.min_ss - old.min_ss
            low_a, high_a = max(region.min_a, old.min_fs), min(region.max_a, old.max_fs)
            low_b, high_b = max(region.min_b, old.min_ss), min(region.max_b, old.max_ss)
            if low_a <= high_a and low_b <= high_b:
                name = region.name if region.panel else f"{region.name}_{number}"
                yield BadRegion(name, new.name, True, low_a + fs, high_a + fs, low_b + ss, high_b + ss)
