"""Scripts without Hydra: names of the package, its pages and its notebook, wrong parts named."""

import ast
import json
import re
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from schnetpack.data import ASEAtomsData

import schnetpack_phonon
from schnetpack_phonon import (
    AseCalculator,
    Crystal,
    Crystals,
    EnsembleData,
    FiniteDisplacements,
    Instabilities,
    PhononEnsemble,
    RandomEnsemble,
    phonon_model,
)
from schnetpack_phonon.phonons import harmonic_models
from tests.models.model_fixtures import thermal
from tests.phonons.force_constants_fixtures import STABLE

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = [
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Skipping 'outputs' parameter"),
]


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (EXAMPLES / page).read_text(), re.DOTALL)


def test_types_are_those_of_the_names():
    stub = Path(schnetpack_phonon.__file__).with_suffix(".pyi")
    tree = ast.parse(stub.read_text())
    places = {
        alias.asname: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(places) == dir(schnetpack_phonon)
    for name, module in places.items():
        assert getattr(schnetpack_phonon, name).__module__ == module


# In small: one crystal, fewer snapshots and epochs.
SMALL = {
    "python": {"n_snapshots=20": "n_snapshots=5", "=100,": "=1,"},
    "first_look": {', "Ag3SI", "Ag3SeBr", "Ag3SeI"': "", "max_epochs=8": "max_epochs=1"},
    "plain_schnetpack": {"max_epochs=10": "max_epochs=1", "max_structures=4": "max_structures=1"},
}


@pytest.mark.parametrize("notebook", SMALL)
def test_notebooks_are_executed(notebook, capsys):
    """Cell by cell, and their outputs are in the file."""
    cells = json.loads((EXAMPLES / f"{notebook}.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert sum(bool(cell["outputs"]) for cell in cells if cell["cell_type"] == "code") >= 4
    names: dict = {}
    for cell in code:
        small = cell
        for old, new in SMALL[notebook].items():
            small = small.replace(old, new)
        exec(compile(small, notebook, "exec"), names)
    if notebook == "python":
        assert len(names["predictions"]) == len(names["data"].test_idx) == 1
        assert Path("copper", "cu.db").is_file()
    elif notebook == "first_look":
        assert len(names["labels"]) == 3 * 40
        assert "change of the gap" in capsys.readouterr().out
    else:
        assert "Completeness" in Path("bonds", "bond_verdict.txt").read_text()


def test_code_of_the_page_is_python():
    for block in blocks("python.md"):
        ast.parse(block)


def test_our_parts_in_a_setup_of_schnetpack(tmp_path):
    """The page as it is, with a smaller network and one epoch."""
    (code,) = blocks("own_setup.md")
    ideal, _ = thermal()
    ase.io.write("ideal.cif", ideal)
    data = ASEAtomsData.create("gaps.db", "Ang", {"band_gap": "eV"})
    rng = np.random.default_rng(0)
    gaps = [{"band_gap": rng.uniform(0.5, 1.5, size=1)} for _ in range(20)]
    data.add_systems(gaps, [thermal(k)[1] for k in range(20)])
    for old, new in (("64, 3, spk", "8, 1, spk"), ("BandGap(64", "BandGap(8"), ("=100,", "=1,")):
        assert old in code
        code = code.replace(old, new)
    for head in ("", "head = HamiltonianEdges"):
        names: dict = {}
        exec(code.replace("# head = HamiltonianEdges", head or "# head = "), names)
        assert (tmp_path / "bonds" / "bond_attribution.csv").is_file()
        (tmp_path / "bonds" / "bond_attribution.csv").unlink()
        assert names["trainer"].callback_metrics["test_band_gap_mae"] > 0


def crystal() -> Crystal:
    return Crystal("Cu", bulk("Cu", cubic=True), [2, 2, 2])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"calculator": EMT()}, r"calculator is .*EMT.* for one of ASE AseCalculator\(EMT\)"),
        ({"structure": "POSCAR"}, r"structure is 'POSCAR'; expected crystals: Crystals"),
        ({"ensemble": [300]}, r"ensemble is \[300\]; expected an ensemble, such as PhononEn"),
        ({"phonons": Instabilities()}, r"phonons is Instabilities\(.*FiniteDisplacements"),
        ({"ensemble": PhononEnsemble}, r"ensemble is <class .*PhononEnsemble'>; expected an en"),
    ],
)
def test_a_wrong_part_is_named(part, message):
    right = {
        "structure": Crystals([crystal()]),
        "ensemble": PhononEnsemble([300], n_snapshots=1, seed=0),
        "calculator": AseCalculator(EMT),
    }
    with pytest.raises(TypeError, match=message):
        EnsembleData("x.db", **(right | part))


def test_a_crystal_is_made_of_atoms_and_a_supercell():
    assert crystal().supercell_matrix == ((2, 0, 0), (0, 2, 0), (0, 0, 2))
    with pytest.raises(TypeError, match=r"unit cell of Cu is 'POSCAR'; expected ase\.Atoms"):
        Crystal("Cu", "POSCAR", [2, 2, 2])
    with pytest.raises(ValueError, match="expected different ones"):
        Crystals([crystal(), crystal()])


def test_one_model_and_its_snapshots_are_those_of_the_data_module():
    calculator, phonons = AseCalculator(EMT), FiniteDisplacements(STABLE)
    model = phonon_model(crystal(), phonons, calculator, temperature=300)
    models = harmonic_models([crystal()], [300], {"Cu": model.force_constants}, STABLE)
    np.testing.assert_array_equal(model.frequencies, models["Cu", 300.0].frequencies)
    with pytest.raises(ValueError, match="force constants of Cu need forces: give a calculator"):
        phonon_model(crystal(), phonons)
    ensemble = PhononEnsemble([100, 300], n_snapshots=3, seed=1)
    drawn = ensemble.draw(crystal(), model)
    assert [s.parameter for s in drawn] == [100, 100, 100, 300, 300, 300]
    stream = ensemble.snapshots(crystal(), model, 300.0)
    np.testing.assert_array_equal(drawn[3].atoms.positions, next(stream).atoms.positions)
    with pytest.raises(ValueError, match="PhononEnsemble needs the harmonic model of Cu"):
        ensemble.draw(crystal())
    assert len(RandomEnsemble([0.1], n_snapshots=2, seed=0).draw(crystal())) == 2
