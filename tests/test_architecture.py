"""Who may import whom, and what must stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "schnetpack_phonon"
# A module imports only those before it in a line.
CHAINS = (
    "properties modes structures phonons snapshots sampling ensembles",
    "snapshots fixed_ensembles",
    "streams sampling",
    "streams renormalization",
    "sampling combined_ensembles",
    "properties elasticity calculators finite_strain",
    "elasticity combined_ensembles",
    "labelling finite_strain preparation",
    "structures alloys preparation generation",
    "instabilities phonons calculators force_constants renormalization",
    "phonons force_pool renormalization",
    "labelling renormalization",
    "force_constants phonopy_files",
    "force_constants preparation generation",
    "force_constants preview generation",
    "structures dispersion plotting preview",
    "properties structures calculators label_store labelling preparation generation datamodule",
    "datamodule callbacks",
    "files label_store",
    "files calculators rows database",
    "files generation",
    "properties structures calculators tight_binding labelling",
    "properties calculators relaxation labelling",
    "calculators external_code cp2k_output cp2k",
    "external_code labelling manifest outcomes exchange cli",
    "generation exchange",
    "external_code espresso_output espresso",
    "external_code vasp_output vasp",
    "external_code gpaw_output gpaw",
    "executors calculators cluster",
    "executors progress labelling",
    "progress bond_report",
    "progress thermal",
    "progress cross_predictions",
    "snapshots database generation datamodule heads band_edges",
    "cutoffs bonds stress elastic_tensor",
    "datamodule heads bonds elastic_response",
    "voigt elastic_tensor elastic_response elastic_moduli",
    "heads energy",
    "datamodule task",
    "determinism graph_cache",
    "files graphs graph_cache loading datamodule",
    "properties elasticity predict",
    "paths attributable edges bond_methods attribution bond_report callbacks",
    "paths bond_attribution attribution",
    "edges freezing bond_report",
    "trust freezing bond_report",
    "structure_pairs attribution",
    "untrained bond_report",
    "cutoffs edges",
    "predict bond_command",
    "report bond_report bond_command cli",
    "bond_export bond_report",
    "plotting bond_figures bond_report",
    "evaluation callbacks",
    "predictions callbacks",
    "plotting callbacks",
    "report callbacks",
    "report cli",
    "database held_out run_groups cross_tests comparison",
    "executors cross_predictions cross_tests",
    "predict cross_answers",
    "properties components held_out cross_tests",
    "components coverage",
    "files runs held_out cross_predictions",
    "runs run_groups comparison_tables comparison",
    "runs callbacks",
    "cross_tests comparison cli",
    "cross_errors learning_curves comparison",
    "trust trust_table comparison",
    "plotting comparison_figures comparison_tables comparison",
    "report page comparison sweep_report",
    "preparation runs run_vibrations thermal thermal_report cli",
    "held_out distance coverage coverage_section comparison",
    "comparison_figures coverage_figure coverage_section",
    "predict thermal",
    "comparison_figures thermal_figures thermal_report",
    "label_store report label_maintenance cli",
    "label_store rows label_export cli",
)
TORCH_USERS = {
    "attributable",
    "attribution",
    "band_edges",
    "bond_command",
    "bond_methods",
    "bond_report",
    "bonds",
    "callbacks",
    "cross_answers",
    "cutoffs",
    "datamodule",
    "determinism",
    "edges",
    "elastic_moduli",
    "elastic_response",
    "elastic_tensor",
    "energy",
    "epochs",
    "freezing",
    "graph_cache",
    "graphs",
    "heads",
    "metrics",
    "loading",
    "predict",
    "predictions",
    "splits",
    "stress",
    "task",
    "thermal",
    "thermal_report",
    "untrained",
    "voigt",
}
MODULES = {path.stem for path in PACKAGE.glob("[a-z]*.py")}


def imports(path):
    """Top-level and nested imports of our own modules and of others, by first name."""
    ours, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "schnetpack_phonon":
                names = [f"schnetpack_phonon.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "schnetpack_phonon":
                ours.add(rest.split(".")[0])
            else:
                others.add(first)
    return ours, others


@pytest.mark.parametrize("chain", CHAINS)
def test_imports_follow_the_line_of_flow(chain):
    names = chain.split()
    for position, name in enumerate(names):
        later = set(names[position + 1 :])
        assert not imports(PACKAGE / f"{name}.py")[0] & later, name


def test_nothing_imports_the_commands():
    for path in PACKAGE.glob("*.py"):
        assert "cli" not in imports(path)[0], path


def test_phonopy_stays_where_crystals_are_made():
    users = {p.stem for p in PACKAGE.glob("*.py") if "phonopy" in imports(p)[1]}
    assert users == {"modes", "structures", "phonons", "force_constants", "phonopy_files"}


@pytest.mark.parametrize(
    ("heavy", "modules"),
    [
        (["torch"], sorted(MODULES - TORCH_USERS)),
        (["torch", "phonopy", "ase", "numpy"], ["_hydra"]),
    ],
    ids=["light", "_hydra"],
)
def test_light_modules_do_not_load_what_is_heavy(heavy, modules):
    """Imported one after the other: the first after which it is there is named."""
    code = f"""
import sys
from importlib import import_module
for module in {modules}:
    import_module(f"schnetpack_phonon.{{module}}")
    loaded = set({heavy}) & set(sys.modules)
    assert not loaded, f"{{module}} loads {{loaded}}"
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_every_module_has_its_tests():
    tested = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert tested >= MODULES
