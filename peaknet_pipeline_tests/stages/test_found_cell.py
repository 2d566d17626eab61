"""``peaknet cell`` and ``peaknet refine-geometry`` on simulated spots, by the command line."""

import json
from dataclasses import replace

import numpy as np
import pytest

from peaknet_pipeline.cli import main
from peaknet_pipeline.geometry.crystfel import read_geometry
from peaknet_pipeline.geometry.crystfel_write import write_geometry
from peaknet_pipeline.indexing.cell import read_cell, write_cell
from peaknet_pipeline.indexing.lattice import index_peaks
from peaknet_pipeline.schemas import INDEX, PEAKS
from peaknet_pipeline.tables import make_table, write_table
from peaknet_pipeline_tests.indexing.spots import ENERGY_EV, LYSOZYME, flat_geometry, simulated_frames
from peaknet_pipeline_tests.indexing.test_lattice import peaks_of

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write peaks, the geometry that they were made with, and one whose right panel is displaced."""
    folder = tmp_path_factory.mktemp("cell")
    geometry = flat_geometry()
    batch, _ = simulated_frames(LYSOZYME, n_frames=8, n_true=80, n_false=10, seed=71, width=0.0005)
    places = peaks_of(batch, geometry)
    columns = {c.name: np.ones(len(places)) for c in PEAKS.columns if not c.nullable}
    peaks = make_table(PEAKS, columns | {n: places[n].to_numpy() for n in ("frame", "panel", "fs", "ss")})
    write_table(peaks, folder / "peaks.parquet", PEAKS, extra={"photon_energy_ev": f"[{ENERGY_EV}]"})
    left, right = geometry.panels
    wrong = replace(geometry, panels=(left, replace(right, corner_x=right.corner_x + 1.2)))
    write_geometry(geometry, folder / "right.geom")
    write_geometry(wrong, folder / "wrong.geom")
    write_cell(LYSOZYME, folder / "lyso.cell")
    lattices = index_peaks(places, geometry=wrong, photon_energy_ev=ENERGY_EV, cell=LYSOZYME)
    write_table(lattices, folder / "lattices.parquet", INDEX)
    return folder


def run(capsys, *words):
    main([*(str(word) for word in words), "--json"])
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_cell_command_writes_the_cell_and_its_plot(files, capsys):
    out, plot = files / "found.cell", files / "found.png"
    told = run(
        capsys,
        "cell",
        files / "peaks.parquet",
        "--geometry",
        files / "right.geom",
        "--out",
        out,
        "--plot",
        plot,
    )
    found = read_cell(out)

    assert (found.lattice_type, found.centering) == ("tetragonal", "P")
    assert found.a == pytest.approx(LYSOZYME.a, rel=0.003)
    assert found.c == pytest.approx(LYSOZYME.c, rel=0.003)
    assert told["frames_agreeing"] >= 6
    assert plot.read_bytes().startswith(PNG)


def test_the_refine_geometry_command_puts_a_displaced_panel_back(files, capsys):
    out, plot = files / "refined.geom", files / "refined.png"
    told = run(
        capsys, "refine-geometry", files / "peaks.parquet", files / "lattices.parquet",
        "--geometry", files / "wrong.geom", "--cell", files / "lyso.cell", "--out", out, "--plot", plot,
    )  # fmt: skip
    between = [
        g.panels[1].corner_x - g.panels[0].corner_x
        for g in (read_geometry(files / name) for name in ("right.geom", "refined.geom"))
    ]

    assert between[1] == pytest.approx(between[0], abs=0.2)
    assert told["after_px"] < told["before_px"]
    assert [row["name"] for row in told["panels"]] == ["left", "right"]
    assert plot.read_bytes().startswith(PNG)


def test_too_few_frames_for_a_cell_are_told_and_leave_no_file(files, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["cell", str(files / "peaks.parquet"), "--geometry", str(files / "right.geom"),
              "--set", "min_agreeing=9", "--out", str(files / "none.cell")])  # fmt: skip

    assert stop.value.code == 2
    assert "no cell that frames agree on" in capsys.readouterr().err
    assert not (files / "none.cell").exists()
