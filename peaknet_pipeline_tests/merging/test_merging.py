"""Merged intensities, figures, settings and files against known intensities and independent readers."""

import gemmi
import numpy as np
import pandas as pd
import pytest

from peaknet_pipeline.bench.merging_references import Crystals, plain_mean, scaled_mean
from peaknet_pipeline.errors import CellError, TableError
from peaknet_pipeline.merging.combine import combine_runs
from peaknet_pipeline.merging.figures import merged_set, wilson_plot
from peaknet_pipeline.merging.files import (
    crystfel_point_group,
    write_hkl,
    write_merged_mtz,
    write_unmerged_mtz,
)
from peaknet_pipeline.merging.parameters import MergeParams
from peaknet_pipeline.merging.run_sums import merge_run, sums_of_table, sums_table
from peaknet_pipeline.merging.symmetry import asymmetric_keys, find_symmetry, indices_of, possible_keys
from peaknet_pipeline.simulate.draw import SAMPLES, find_sample

PARAMS = MergeParams()


class Merged:
    """Simulated crystals and what they are merged to."""

    def __init__(self, *args, **options):
        self.crystals = Crystals(*args, **options)
        self.sample = self.crystals.sample
        self.symmetry = find_symmetry(self.sample.space_group, self.sample.cell)
        self.about = {"cell": self.sample.cell, "symmetry": self.symmetry, "params": PARAMS}
        self.scaled = merge_run(self.crystals.table, run="one", **self.about)
        self.merged = merged_set(self.scaled.sums, **self.about)
        self.table = self.merged.reflections
        self.keys = asymmetric_keys(self.table[["h", "k", "l"]].to_numpy(), self.symmetry.rotations)
        self.true = self.crystals.true_intensity(self.keys, self.symmetry)


@pytest.fixture(scope="module")
def lysozyme():
    return Merged("lysozyme", 150, seed=11)


def correlation(a, b):
    return np.corrcoef(a, b)[0, 1]


def test_merged_intensities_are_nearer_the_truth_than_plain_and_scaled_means(lysozyme):
    plain, scaled = (
        f(lysozyme.crystals.table, lysozyme.symmetry).reindex(lysozyme.keys)
        for f in (plain_mean, scaled_mean)
    )
    ours = correlation(lysozyme.table["intensity"], lysozyme.true)

    assert ours > correlation(plain, lysozyme.true) + 0.03
    assert ours > correlation(scaled, lysozyme.true) + 0.03


def test_weak_frames_count_by_their_weights():
    crystals = Merged("lysozyme", 80, seed=12, photons=60.0, brightness=1.2)
    weights = crystals.scaled.observations, crystals.scaled.scaling
    bright = weights[1].log_scale > np.median(weights[1].log_scale)
    share = np.add.reduceat(1.0 / weights[0].variance, weights[0].starts[:-1]) * np.exp(
        2 * weights[1].log_scale
    )

    assert share[bright].sum() > 3 * share[~bright].sum()
    plain = plain_mean(crystals.crystals.table, crystals.symmetry).reindex(crystals.keys)
    assert correlation(crystals.table["intensity"], crystals.true) > correlation(plain, crystals.true)


def test_standard_errors_are_those_of_the_halves(lysozyme):
    both = lysozyme.table.dropna()
    pulls = (both["intensity_1"] - both["intensity_2"]) / np.hypot(both["sigma_1"], both["sigma_2"])

    assert 1.4826 * pulls.abs().median() == pytest.approx(1.0, abs=0.3)


def test_figures_agree_with_their_definitions(lysozyme):
    table, row = lysozyme.table, lysozyme.merged.overall
    both = table.dropna()
    possible = possible_keys(
        lysozyme.sample.cell, lysozyme.symmetry, max_inv_d=float(table["inv_d"].max()) * 1.0001
    )

    half = correlation(both["intensity_1"], both["intensity_2"])
    assert row["cc_half"] == pytest.approx(half)
    assert row["cc_star"] == pytest.approx(np.sqrt(2 * half / (1 + half)))
    assert row["completeness"] == pytest.approx(len(table) / len(possible), rel=0.01)
    assert row["multiplicity"] == pytest.approx(table["n"].mean())
    assert 0 < row["cc_half_error"] < 0.2
    assert lysozyme.merged.shells["n_unique"].iloc[:-1].sum() == len(table)
    assert abs(correlation(table["intensity"], lysozyme.true) - row["cc_star"]) < 0.1


def test_the_wilson_plot_gives_the_b_factor_of_atoms_that_scatter(lysozyme):
    s2 = lysozyme.table["inv_d"].to_numpy(float) ** 2
    carbon = np.array([gemmi.Element("C").it92.calculate_sf(v / 4) ** 2 for v in s2])
    exact = lysozyme.table.assign(intensity=carbon * np.exp(-0.5 * 33.0 * s2))
    assert wilson_plot(exact, lysozyme.symmetry).b_factor == pytest.approx(33.0, abs=2.0)
    assert lysozyme.merged.wilson.b_error > 0


def test_a_crystal_of_another_kind_is_rejected_by_name(lysozyme):
    table = lysozyme.crystals.table.copy()
    rows = table["frame"] == 7
    generator = np.random.default_rng(0)
    table.loc[rows, "intensity"] = generator.permutation(table.loc[rows, "intensity"].to_numpy())
    few = (table["frame"] == 9) & (table.groupby("frame").cumcount() >= 5)
    crystals = merge_run(table[~few], run="odd", **lysozyme.about).sums.crystals

    assert crystals.loc[crystals["frame"] == 7, "reason"].item() == "no correlation with the others"
    assert crystals.loc[crystals["frame"] == 9, "reason"].item() == "too few reflections"
    assert crystals["accepted"].sum() >= 0.95 * len(crystals)


def test_runs_added_one_by_one_are_as_good_as_all_at_once(lysozyme):
    table = lysozyme.crystals.table
    parts = [table[table["frame"] % 2 == n] for n in (0, 1)]
    brighter = parts[1].assign(intensity=5 * parts[1]["intensity"], sigma=5 * parts[1]["sigma"])
    runs = [merge_run(part, run=str(n), **lysozyme.about).sums for n, part in enumerate((parts[0], brighter))]
    runs = [sums_of_table(sums_table(run), run.crystals, lysozyme.symmetry) for run in runs]
    total, scales = combine_runs(runs, cell=lysozyme.sample.cell, symmetry=lysozyme.symmetry)
    together = merged_set(total, **lysozyme.about).reflections
    keys = asymmetric_keys(together[["h", "k", "l"]].to_numpy(), lysozyme.symmetry.rotations)
    true = lysozyme.crystals.true_intensity(keys, lysozyme.symmetry)

    assert (
        correlation(together["intensity"], true)
        > correlation(lysozyme.table["intensity"], lysozyme.true) - 0.03
    )
    ratio = scales[1].scale / scales[0].scale
    assert max(ratio, 1 / ratio) == pytest.approx(5.0, rel=0.25)


@pytest.mark.parametrize("sample", ["yellow_protein", "nuclease"])
def test_crystals_of_polar_groups_come_into_one_setting(sample):
    form = find_sample(sample)
    symmetry = find_symmetry(form.space_group, form.cell)
    assert len(symmetry.settings) == 2
    crystals = Crystals(sample, 100, seed=21, photons=300.0, settings=symmetry.settings, min_d=3.0)
    made = merge_run(crystals.table, run="polar", cell=form.cell, symmetry=symmetry, params=PARAMS)
    right = (made.sums.crystals["setting"].to_numpy() + crystals.setting) % 2

    assert max(right.mean(), 1 - right.mean()) >= 0.95
    keys = made.sums.keys
    value = made.sums.sums[:, 1].sum(axis=0) / np.maximum(made.sums.sums[:, 0].sum(axis=0), 1e-12)
    good = made.sums.sums[:, 3].sum(axis=0) > 8
    each = [
        correlation(value[good], crystals.true_intensity(keys, symmetry, setting)[good])
        for setting in symmetry.settings
    ]
    assert max(each) > 0.7 > min(each)


def test_trigonal_crystals_have_four_settings_and_come_into_one():
    form = find_sample("yellow_protein")
    symmetry = find_symmetry("P 3", form.cell)
    assert len(symmetry.settings) == 4
    assert len(find_symmetry("P 43 21 2", find_sample("lysozyme").cell).settings) == 1


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_unique_reflections_are_gemmis(name):
    form = find_sample(name)
    symmetry = find_symmetry(form.space_group, form.cell)
    hkl = np.random.default_rng(1).integers(-9, 10, (60, 3))
    asu = gemmi.ReciprocalAsu(symmetry.group)
    theirs = [asu.to_asu(list(map(int, one)), symmetry.group.operations())[0] for one in hkl]

    ours = asymmetric_keys(hkl, symmetry.rotations)
    assert (asymmetric_keys(np.array(theirs), symmetry.rotations) == ours).all()
    assert len(set(map(tuple, theirs))) == len(set(ours))
    assert (asymmetric_keys(indices_of(ours), symmetry.rotations) == ours).all()


def test_point_groups_are_read_and_written_as_crystfel_names_them():
    cell = find_sample("lysozyme").cell
    assert crystfel_point_group(find_symmetry("422", cell)) == "4/mmm"
    assert crystfel_point_group(find_symmetry("4/mmm", cell, friedel=False)) == "4/mmm"
    assert crystfel_point_group(find_symmetry("P43212", cell, friedel=False)) == "422"
    trypsin, myoglobin = find_sample("trypsin"), find_sample("myoglobin")
    assert crystfel_point_group(find_symmetry("P 31 2 1", trypsin.cell, friedel=False)) == "321_H"
    assert crystfel_point_group(find_symmetry("P 1 21 1", myoglobin.cell)) == "2/m_uab"
    with pytest.raises(CellError, match="unknown symmetry"):
        find_symmetry("P 99", cell)
    with pytest.raises(CellError, match="does not obey"):
        find_symmetry("P 2 3", cell)


def test_files_are_read_by_an_independent_reader(lysozyme, tmp_path):
    about = {"cell": lysozyme.sample.cell, "symmetry": lysozyme.symmetry}
    write_merged_mtz(tmp_path / "merged.mtz", lysozyme.table, **about)
    write_unmerged_mtz(tmp_path / "unmerged.mtz", lysozyme.scaled, **about)
    write_hkl(tmp_path / "merged.hkl", lysozyme.table, symmetry=lysozyme.symmetry)
    merged = read_mtz(tmp_path / "merged.mtz")
    asu = gemmi.ReciprocalAsu(lysozyme.symmetry.group)

    assert len(merged) == len(lysozyme.table)
    assert all(asu.is_in([int(v) for v in hkl]) for hkl in merged[["H", "K", "L"]].to_numpy()[:50])
    keys = asymmetric_keys(merged[["H", "K", "L"]].to_numpy(int), lysozyme.symmetry.rotations)
    ours = pd.Series(lysozyme.table["intensity"].to_numpy(), index=lysozyme.keys)[keys]
    assert merged["IMEAN"].to_numpy() == pytest.approx(ours.to_numpy(), rel=1e-5)

    unmerged = read_mtz(tmp_path / "unmerged.mtz")
    accepted = lysozyme.scaled.sums.crystals
    assert len(unmerged) == pytest.approx(accepted.loc[accepted["accepted"], "n_reflections"].sum(), rel=0.01)
    weight = unmerged["SIGI"] ** -2.0
    keys = asymmetric_keys(unmerged[["H", "K", "L"]].to_numpy(int), lysozyme.symmetry.rotations)
    mean = (weight * unmerged["I"]).groupby(keys).sum() / weight.groupby(keys).sum()
    assert correlation(mean[lysozyme.keys], lysozyme.table["intensity"]) > 0.99

    lines = (tmp_path / "merged.hkl").read_text().splitlines()
    assert lines[:2] == ["CrystFEL reflection list version 2.0", "Symmetry: 4/mmm"]
    assert lines[-1] == "End of reflections"
    assert len(lines) == len(lysozyme.table) + 4
    assert float(lines[3].split()[3]) == pytest.approx(lysozyme.table["intensity"][0], abs=1e-3)


def read_mtz(path):
    """Read an MTZ without this package, after its format: 80-byte header records, big or little endian floats."""
    data = path.read_bytes()
    assert data[:4] == b"MTZ "
    place = int(np.frombuffer(data[4:8], "<i4")[0])
    header = data[4 * (place - 1) :].decode("ascii", "replace")
    records = [header[i : i + 80].split() for i in range(0, len(header), 80)]
    n_columns, n_rows = next((int(r[1]), int(r[2])) for r in records if r and r[0] == "NCOL")
    names = [r[1] for r in records if r and r[0] == "COLUMN"]
    values = np.frombuffer(data[80 : 80 + 4 * n_columns * n_rows], "<f4").reshape(n_rows, n_columns)
    return pd.DataFrame(values.astype(float), columns=names)


def test_tables_without_integrated_reflections_are_refused(lysozyme):
    table = lysozyme.crystals.table.assign(intensity=np.nan)
    with pytest.raises(TableError, match="no reflection was integrated"):
        merge_run(table, run="none", **lysozyme.about)
