"""Several calculators, crystals at rest, and what is said about labels and modes."""

import logging
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import ase.db
import ase.io
import numpy as np
import pandas as pd
import phonopy
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import UnavailableError
from schnetpack_phonon.data.card import partly_filled, write_card
from schnetpack_phonon.data.database import complete, keys_of, read_metadata
from schnetpack_phonon.data.preparation import MANY_IMAGINARY, Recipe, prepare
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.labels import relaxation
from schnetpack_phonon.labels.finite_strain import FiniteStrain
from schnetpack_phonon.phonons.force_constants import (
    FiniteDisplacements,
    harmonic_models,
)
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.phonons.renormalization import Renormalised
from schnetpack_phonon.structures.crystals import Antiperovskites, Crystal, supercell_matrix
from tests.data.data_fixtures import ALLOYS, ensemble_data
from tests.data.preparation.preparation_fixtures import no_labeller


def test_labels_that_some_structures_lack(caplog):
    """Gaps of each spin are named in no message: there are none where spins do not differ."""
    caplog.set_level("INFO")
    some = {"band_gap": np.ones(1)}
    all_of_them = {**some, "energy": np.ones(1), "band_gap_spin": np.ones((1, 2))}
    assert keys_of([some, None, all_of_them]) == ["band_gap", "energy", "band_gap_spin"]
    assert caplog.messages == ["energy: NaN in 1 of 2 structures"]


@pytest.mark.parametrize("moment", [0.0, 1.0])
@pytest.mark.parametrize("gap", [True, False])
def test_keys_of_labels_of_magnetic_crystals(moment, gap):
    atoms = bulk("Cu")
    atoms.set_initial_magnetic_moments([moment])
    structure = SimpleNamespace(crystals=[Crystal("Cu", atoms, supercell_matrix([2, 1, 1]))])
    given = ("energy", "band_gap") if gap else ("energy",)
    recipe = Recipe(
        structure,
        None,
        SimpleNamespace(source_of_labels=None),
        SimpleNamespace(properties=given),
        FiniteStrain(),
    )
    spins = ("band_gap_spin",) if gap and moment else ()
    assert recipe.properties == (*given, *spins, "elastic_tensor")


def test_partly_filled_bands_are_counted(caplog):
    """Labels of version 0.1 that do not know them stand beside others that do."""
    old, new = {"band_gap": np.ones(1)}, {"partial_occupation": np.full(1, 0.3)}
    assert list(complete([old, None])) == [old]
    assert not caplog.records
    assert list(complete([old, None, old | new])) == [old, old | new]
    assert "1 structures have partly filled bands" in caplog.text
    assert partly_filled(pd.DataFrame({"partial_occupation": [np.nan, 0.3, 0.0]})) == [
        "Partly filled bands: 1 of 3 structures (`partial_occupation` above 0.01 electrons); "
        "not known for 1."
    ]
    assert partly_filled(pd.DataFrame({"band_gap": [1.0]})) == []


# Lattice and force constants of other calculators than the labels.


class Stiff(EMT):
    """EMT whose energy is three times as large: the same lattice, frequencies times sqrt(3)."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        factors = dict.fromkeys(("energy", "free_energy", "forces", "stress"), 3.0)
        self.results |= {k: f * self.results[k] for k, f in factors.items() if k in self.results}


def stiff() -> AseCalculator:
    return AseCalculator(Stiff)


def two_fidelities(folder, structure=None, phonons=None, **changed):
    """Of one alloy, whose force constants and lattice may be those of other calculators."""
    lattice = {"lattice_constants": ALLOYS, "calculator": structure, **changed}
    return ensemble_data(
        folder,
        PhononEnsemble([300], n_snapshots=2, seed=1),
        structure=Antiperovskites(["Cu3PdAu"], supercell=[1, 1, 1], **lattice),
        phonons=FiniteDisplacements(Instabilities(), calculator=phonons),
        batch_size=1,
    )


def test_force_constants_of_another_calculator(tmp_path):
    """They are three times as large; everything else is of the calculator of the labels."""
    one, other = two_fidelities(tmp_path / "a"), two_fidelities(tmp_path / "b", phonons=stiff())
    lowest = []
    for data in (one, other):
        data.prepare_data()
        metadata = read_metadata(data.datapath)
        lowest.append(metadata["phonons"][0]["lowest_frequency"])
        assert metadata["versions"]["calculator"] == AseCalculator(EMT).code_version
    assert lowest[1] == pytest.approx(3**0.5 * lowest[0])
    rows = [list(ase.db.connect(data.datapath).select()) for data in (one, other)]
    np.testing.assert_array_equal(rows[0][0].cell, rows[1][0].cell)
    assert [row.get("phonons_code") for row in rows[0]] == [None, None]
    assert [row.phonons_code for row in rows[1]] == [stiff().code_version] * 2
    settings = [data.generation.recipe.settings for data in (one, other)]
    assert settings[1]["phonons"].pop("calculator") == stiff().settings
    assert settings[0] == settings[1]
    assert "force constants, code" in write_card(other.datapath)
    assert "force constants, code" not in write_card(one.datapath)


def test_lattice_of_another_calculator(tmp_path, caplog):
    """Its minimum is not that of the labels, which is said."""
    other = AseCalculator(partial(EMT, asap_cutoff=True))
    one, two = two_fidelities(tmp_path / "a"), two_fidelities(tmp_path / "b", structure=other)
    with caplog.at_level(logging.WARNING):
        one.prepare_data()
    assert "looks unrelaxed" not in caplog.text
    two.prepare_data()
    a, b = (read_metadata(data.datapath)["crystals"]["Cu3PdAu"]["cell"] for data in (one, two))
    assert np.abs(np.array(a) - b).max() > 1e-4
    settings = two.generation.recipe.settings
    assert settings["structure"].pop("calculator") == other.settings
    assert settings == one.generation.recipe.settings
    assert "relaxation, asap cutoff" in write_card(two.datapath)


def test_the_same_calculator_by_another_option_is_the_same_database(tmp_path):
    same = AseCalculator(EMT, time_limit=60)
    one, other = two_fidelities(tmp_path), two_fidelities(tmp_path, structure=same, phonons=same)
    assert one.generation.recipe.settings == other.generation.recipe.settings


def test_every_calculator_is_checked_first(tmp_path):
    small = AseCalculator(EMT, min_atoms=6)
    with pytest.raises(ValueError, match=r"nothing is relaxed"):
        two_fidelities(tmp_path, structure=stiff(), relax=False).generation.recipe.check()
    for part in ("structure", "phonons"):
        small.factory = Stiff
        with pytest.raises(ValueError, match=r"has 5 atoms; .* >= 6"):
            two_fidelities(tmp_path, **{part: small}).generation.recipe.check()


def test_a_renormalisation_has_the_calculator_of_its_source():
    own, source = stiff(), FiniteDisplacements(Instabilities(), calculator=stiff())
    assert Renormalised(source).calculator is source.calculator
    assert Renormalised(source, calculator=own).calculator is own
    assert Renormalised(FiniteDisplacements(Instabilities())).calculator is None


def test_crystals_at_rest_have_labels(built):
    """From which changes count: those of the calculator, without displacements."""
    found = read_metadata(built.datapath)["ideal_labels"]
    assert list(found) == list(ALLOYS)
    (row,) = read_rows(built.datapath, [0])
    expected = AseCalculator(EMT).label(row.ideal)
    for key, value in found[row.key_value_pairs["structure"]].items():
        np.testing.assert_allclose(value, expected[key], atol=1e-6, err_msg=key)


@pytest.mark.parametrize(("factor", "warned"), [(0.98, False), (0.96, True)])
def test_what_relaxing_changes_is_said(tmp_path, caplog, factor, warned):
    a = factor * 4.664  # of EMT
    data = two_fidelities(tmp_path, lattice_constants={"Cu3PdAu": a})
    with caplog.at_level(logging.INFO):
        data.preview()
    (cell,) = (tmp_path / "data" / "phonons").glob("*/POSCAR")
    relaxed = ase.io.read(cell)
    b = relaxed.cell.lengths()[0]
    assert f"Cu3PdAu: relaxed, {a:.3f} -> {b:.3f} Ang, {100 * (b / a - 1):+.1f} %" in caplog.text
    assert ("relaxing changes the cell by more than 3 %" in caplog.text) == warned
    assert (f"a measured one, {relaxation.OTHER_CALCULATOR}" in caplog.text) == warned
    phonon = phonopy.load(cell.with_name("phonopy_params.yaml"), log_level=0)
    np.testing.assert_allclose(phonon.unitcell.cell, relaxed.cell.array, atol=1e-9)


@pytest.mark.parametrize("kind", ["stable", "unstable"])
def test_many_imaginary_modes_are_warned_of(tmp_path, caplog, rock_salt, request, kind):
    models = harmonic_models(
        [rock_salt], [300.0], {"NaCl": request.getfixturevalue(kind)}, Instabilities()
    )
    phonons = SimpleNamespace(models=lambda *_: models, settings={}, calculator=None)
    structure = SimpleNamespace(crystals=[rock_salt], relax=False, calculator=None)
    ensemble = PhononEnsemble([300], n_snapshots=1, seed=0)
    with caplog.at_level(logging.WARNING):
        prepare(Recipe(structure, phonons, ensemble, AseCalculator(EMT)), no_labeller(), tmp_path)
    assert ("NaCl: more than 10 % of the modes" in caplog.text) == (kind == "unstable")
    assert (relaxation.OTHER_CALCULATOR in caplog.text) == (kind == "unstable")


METALS = {  # as GFN1-noX and IPEA1-xTB find MgO, CaO and Si at rest, and a code without occupations
    "MgO": ({"partial_occupation": 0.61, "band_gap": 0.04}, r"partial_occupation 0\.61 electrons"),
    "CaO": ({"partial_occupation": 0.003, "band_gap": 0.37}, None),
    "Si": ({"partial_occupation": 3e-5, "band_gap": 0.59}, None),
    "CoO": ({"band_gap": 0.0}, r"no gap at rest \(0 eV\)"),
    "Cu": ({}, None),
}


@pytest.mark.parametrize("name", METALS)
def test_crystals_that_a_calculator_makes_metals_are_warned_of(name):
    labels, warning = METALS[name]
    found = relaxation.partly_filled({key: np.array([own]) for key, own in labels.items()})
    assert bool(found) == bool(warning)
    if warning:
        assert re.search(f"{warning}.*choose another data/calculator", found)


def test_the_page_that_warnings_name_is_there():
    page = relaxation.OTHER_CALCULATOR.split()[-1]
    text = (Path(__file__).parents[3] / page).read_text()
    limits = (
        f"more than {100 * relaxation.LARGE_CHANGE:g} %",
        f"more than {100 * MANY_IMAGINARY:g} %",
        f"above {properties.PARTLY_FILLED:g} electrons",
        f"below {relaxation.NO_GAP:g} eV",
    )
    assert [limit for limit in limits if limit not in text] == []


def test_jobs_of_other_calculators_are_not_exported(tmp_path):
    with pytest.raises(ValueError, match=r"displacement 0 .*generate --dry-run"):
        two_fidelities(tmp_path, phonons=stiff(), relax=False).generation.plan()
    with pytest.raises(ValueError, match=r"relax Cu3PdAu: .*generate --dry-run"):
        two_fidelities(tmp_path, structure=stiff()).generation.plan()


def test_program_of_a_later_step_is_missed_before_anything_is_calculated(tmp_path):
    """With a version given, as where labels of another machine are used."""
    away = CP2K(command="no-such-program", version="2023.1")
    data = two_fidelities(tmp_path, phonons=away)
    with pytest.raises(UnavailableError, match=r"data\.phonons\.calculator: cannot run 'no-such"):
        data.prepare_data()
    assert not data.generation.label_store.exists()
