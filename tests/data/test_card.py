"""The page about a database says what is in it."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import ase.db
import numpy as np
import pandas as pd
import pytest
from ase.build import bulk

from schnetpack_phonon.data.card import (
    at_rest,
    content_digest,
    different_spins,
    distribution,
    write_card,
)
from schnetpack_phonon.data.database import DatabaseError, Row, write_db
from tests.common.figure_fixtures import N_CRYSTALS, draw
from tests.data.data_fixtures import ALLOYS


@pytest.fixture(scope="module")
def page(built):
    return write_card(built.datapath)


def table(page, title):
    """Rows of the table under a title, as lists of cells."""
    text = page.split(f"## {title}\n\n")[1].split("\n\n")[0]
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]


def test_every_group_has_a_line(built, page):
    head, rule, *lines = table(page, "Labels")
    assert {len(row) for row in (head, rule, *lines)} == {5}
    with ase.db.connect(built.datapath) as db:
        rows = list(db.select())
    for name in ALLOYS:
        for temperature in (100, 300):
            own = [r.data for r in rows if (r.structure, r.temperature) == (name, temperature)]
            (line,) = [x for x in lines if x[:2] == [name, f"phonon, {temperature} K"]]
            stress = 160.21766 * np.array([data["hydrostatic_stress"] for data in own])
            energy = 1e3 * np.std([data["energy_per_atom"] for data in own])
            assert line[2:] == [
                str(len(own)),
                f"{energy:.1f}",
                f"{stress.mean():.2f} ± {stress.std():.2f}",
            ]
    assert len(lines) == 4


def test_what_it_was_made_with(built, page):
    assert page.startswith("# test.db\n\n16 structures, Cu3PdAu, Cu3PtAu; 0 calculations failed")
    assert ["code", "ase.calculators.emt.EMT"] in table(page, "Made with")
    lines = table(page, "Phonons")[2:]
    assert [line[0] for line in lines] == list(ALLOYS)  # one model for both temperatures
    assert all(re.fullmatch(r"-?\d+\.\d\d", line[3]) for line in lines)
    assert (Path(built.datapath).with_name("test_card.md")).read_text() == page


def test_labels_are_those_that_there_are(built, page, tmp_path):
    (line,) = [line for line in page.splitlines() if line.startswith("Labels: ")]
    with ase.db.connect(built.datapath) as db:
        keys = set(db.get(1).data) - {"ideal_positions", "ideal_cell"}
    assert {"forces", "stress", "energy"} <= keys
    assert set(re.findall(r"`(\w+)`", line)) == keys
    assert "`forces` (eV/Ang)" in line
    copy = tmp_path / "copy.db"
    copy.write_bytes(Path(built.datapath).read_bytes())
    with ase.db.connect(copy) as db:
        for k in range(1, len(db) + 1):
            db.update(k, data={"forces": np.full_like(db.get(k).data["forces"], np.nan)})
    assert "forces" not in write_card(copy)


def test_digest_knows_the_content_and_not_the_file(built, page, tmp_path):
    copy = tmp_path / "copy.db"
    copy.write_bytes(Path(built.datapath).read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("UPDATE systems SET ctime = 0")
        connection.commit()
    assert copy.read_bytes() != Path(built.datapath).read_bytes()
    assert f"`{content_digest(copy)}`" in page
    with ase.db.connect(copy) as db:
        row = db.get(3)
        db.update(3, data={"energy": row.data["energy"] + 2e-6})
    assert f"`{content_digest(copy)}`" not in page


def test_different_spins(built, tmp_path):
    """Of structures with a gap of each spin; others have NaN."""
    assert different_spins(built.datapath) == []
    gaps = np.array([[[np.nan, np.nan]], [[1.0, 0.0]], [[2.0, 1.0]]])
    atoms = bulk("Cr")
    rows = (Row(atoms, {"band_gap_spin": own}, {}) for own in gaps)
    write_db(tmp_path / "spins.db", rows, {})
    assert different_spins(tmp_path / "spins.db") == [
        "Different spins: 2 of 3 structures, with gaps of 1.500 ± 0.500 eV (up) and "
        "0.500 ± 0.500 eV (down); metals in a spin: 1 (`band_gap_spin`)."
    ]


def test_labels_at_rest_are_in_report_units():
    labels = {"A": {"energy_per_atom": [-2.0]}, "B": {"band_gap": [0.5]}}
    assert at_rest({"ideal_labels": labels}, "energy_per_atom") == {"A": -2000.0}
    assert at_rest({}, "band_gap") == {}


def test_no_database(tmp_path):
    with pytest.raises(DatabaseError, match="no database at"):
        write_card(tmp_path / "none.db")
    assert not list(tmp_path.iterdir())


@N_CRYSTALS
@pytest.mark.parametrize("temperatures", [(300.0,), (100.0, 200.0, 350.0)])
def test_distribution(crystals, temperatures):
    """One panel a crystal, every label a dot in the column of its temperature, and the means.

    The first crystal has a label at rest.
    """
    rows = [(c, t) for c in crystals for t in temperatures for _ in range(int(t) // 25)]
    table = pd.DataFrame(rows, columns=["structure", "temperature"])
    table["label"] = np.random.default_rng(1).normal(1.0, 0.1, len(rows))
    figure = distribution(table, "temperature", "K", rest={crystals[0]: 1.25})
    draw(figure)
    assert "crystals at rest" in figure.get_suptitle()
    rest = [line for axis in figure.axes for line in axis.lines if line.get_linestyle() == ":"]
    assert [(line.axes, line.get_ydata()[0]) for line in rest] == [(figure.axes[0], 1.25)]
    rest[0].remove()
    assert [axis.get_title() for axis in figure.axes] == list(crystals)
    assert figure.axes[0].get_ylabel().endswith("band gap (eV)")
    for axis, crystal in zip(figure.axes, crystals, strict=True):
        assert axis.get_xlabel() == "temperature (K)"
        ticks = [text.get_text() for text in axis.get_xticklabels()]
        assert ticks == [f"{t:g}" for t in temperatures]
        points = np.concatenate([line.get_xydata() for line in axis.lines])
        for position, temperature in enumerate(temperatures):
            own = table[(table["structure"] == crystal) & (table["temperature"] == temperature)]
            drawn = points[np.abs(points[:, 0] - position) < 0.4, 1]
            expected = [*own["label"], own["label"].mean()]
            np.testing.assert_allclose(np.sort(drawn), np.sort(expected))
