"""The programs that compute labels, their stored outputs, and executables that write these again.

``outputs/NAME/KIND`` contains what a program wrote for the crystal of its :class:`Code`, without
tables of settings and times.
"""

import re
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.units import Rydberg, kB

from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.calculators.espresso import Espresso
from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.calculators.gpaw import Gpaw
from schnetpack_phonon.calculators.vasp import Vasp

DATA = Path(__file__).parent / "outputs"
MESHES = {"gamma": (1, 1, 1), "mesh": (2, 2, 2)}
ODD = "3 electrons: a closed shell needs an even number"
_STAND_INS = str(DATA / "espresso" / "pseudo")  # files, but no pseudopotentials
PSEUDOPOTENTIALS = {"Al": "Al.pz-vbc.UPF", "As": "As.pz-bhs.UPF"}


@dataclass(frozen=True)
class Code:
    """One of them.

    Attributes:
        make: the calculator, with what it cannot do without.
        atoms: that its outputs are of.
        version: that wrote them.
        banner: what the program prints when it starts.
        config: name of its YAML and of the folder in ``tests/data``.
        input: file that the program reads, and the word that stands beside ``mixing`` in it.
        unconverged: (kind, pattern, replacement, file) that make a stored output one of a density
            that did not converge.
        options: (name, value, line of the input) of all that change labels, as plain values.
        refused: (arguments, message) of options that cannot be.
        installed: arguments that gave the stored outputs; None where no test can run the program.
        tells_version: whether the program can be asked without a calculation.
        accurate: further arguments, for less than 1e-3 of numerical noise.
        out_of_reach: further arguments, with which no density converges.
        stops: (atoms, further arguments, message) of calculations that end before their time.
        missing: why the program cannot be run here; empty if it can.
    """

    make: partial[ExternalCode]
    atoms: Atoms
    version: str
    banner: str
    config: str
    input: tuple[str, str]
    unconverged: tuple[str, ...]
    options: list[tuple[str, Any, str]]
    refused: list[tuple[dict[str, Any], str]]
    installed: dict[str, Any] | None = None
    tells_version: bool = True
    accurate: dict[str, Any] = field(default_factory=dict)
    out_of_reach: dict[str, Any] = field(default_factory=dict)
    stops: list[tuple[Atoms, dict[str, Any], str]] = field(default_factory=list)
    missing: str = ""

    @property
    def name(self) -> str:
        return self.make.func.name

    def stored(self, kind: str) -> Path:
        return DATA / self.config / kind

    @property
    def needed(self) -> pytest.MarkDecorator:
        return pytest.mark.skipif(bool(self.missing), reason=self.missing)


def missing(command: str) -> str:
    return "" if shutil.which(command) else f"{command} is not installed"


def distorted(atoms: Atoms, stdev: float, seed: int = 3) -> Atoms:
    """Without any symmetry, the cell too."""
    atoms = atoms.copy()
    shear = [[0.02, 0.03, 0.0], [0.0, 0.0, 0.02], [0.01, 0.0, -0.01]]
    atoms.set_cell(atoms.cell @ (np.eye(3) + shear), scale_atoms=True)
    atoms.rattle(stdev, seed=seed)
    return atoms


def _gpaw_python() -> str:
    """Beside the installed GPAW."""
    return str(Path(shutil.which("gpaw") or "gpaw").with_name("python3"))


CODES = {
    "CP2K": Code(
        make=partial(CP2K),
        atoms=distorted(bulk("AlP", "zincblende", a=5.46), 0.1),
        version="2023.1",
        banner="CP2K version 2023.1",
        config="cp2k",
        input=("label.inp", "ALPHA"),
        # It goes on with forces that are worth nothing.
        unconverged=(
            "mesh",
            r"  \*\*\* SCF run converged in *\d+ steps \*\*\*",
            "  Leaving inner SCF loop after reaching   100 steps.\n\n"
            " *** WARNING in qs_scf.F:601 :: SCF run NOT converged ***",
            "label.out",
        ),
        options=[
            ("functional", "PBE", "PARAMETRIZATION ORIG"),
            ("functional", "revPBE", "PARAMETRIZATION REVPBE"),
            ("basis_set", "TZVP-MOLOPT-SR-GTH", "BASIS_SET TZVP-MOLOPT-SR-GTH"),
            ("potential", "GTH-BLYP", "POTENTIAL GTH-BLYP"),
            ("kpoints", [1, 2, 3], "SCHEME MONKHORST-PACK 1 2 3"),
            ("cutoff", 410.5, "CUTOFF 410.5"),
            ("rel_cutoff", 55, "REL_CUTOFF 55"),
            ("eps_default", 2e-11, "EPS_DEFAULT 2e-11"),
            ("eps_scf", 3e-6, "EPS_SCF 3e-06"),
            ("electronic_temperature", 250, "ELECTRONIC_TEMPERATURE [K] 250"),
            ("added_mos", 23, "ADDED_MOS 23"),
        ],
        refused=[
            ({"functional": "LDA"}, "functional is 'LDA'; expected PBE, PBEsol, revPBE"),
            ({"added_mos": 0}, "added_mos is 0; expected >= 1"),
            ({"mixing": [0.4, 0.01]}, r"mixing is \[0\.4, 0\.01\]; expected .* counts as conver"),
        ],
        installed={"added_mos": 4},
        accurate={"eps_scf": 1e-6},
        out_of_reach={"kpoints": [1, 1, 1], "cutoff": 60, "rel_cutoff": 20, "eps_scf": 1e-30},
        stops=[
            (bulk("LaN", "rocksalt", a=5.3), {}, "basis set <DZVP-MOLOPT-SR-GTH> for element <LA>"),
            (bulk("Si"), {"potential": "GTH-PBX"}, "potential <GTH-PBX> for element <Si> was not"),
            (bulk("Al"), {"kpoints": [1, 1, 1]}, ODD),
        ],
        missing=missing("cp2k.psmp"),
    ),
    "Quantum ESPRESSO": Code(
        make=partial(
            Espresso,
            pseudopotentials=PSEUDOPOTENTIALS,
            pseudo_dir=_STAND_INS,
            ecutwfc=20,
            ecutrho=80,
        ),
        atoms=distorted(bulk("AlAs", "zincblende", a=5.6), 0.05),
        version="6.7MaX",
        banner="     Program PWSCF v.6.7MaX starts on 23Nov2026 at  0:30:13 ",
        config="espresso",
        input=("label.in", "mixing_beta"),
        unconverged=(
            "mesh",
            r"convergence has been achieved in   \d+ iterations",
            "convergence NOT achieved after 100 iterations: stopping",
            "label.log",
        ),
        options=[
            ("ecutwfc", 18.5, "ecutwfc = 18.5"),
            ("ecutrho", 95, "ecutrho = 95.0"),
            ("functional", "pbesol", "input_dft = 'pbesol'"),
            ("kpoints", [1, 2, 3], "1 2 3 0 0 0"),
            ("conv_thr", 3e-6, "conv_thr = 3e-06"),
            ("electronic_temperature", 250, f"degauss = {250 * kB / Rydberg}"),
            ("namelists", {"system": {"vdw_corr": "dft-d3"}}, "vdw_corr = 'dft-d3'"),
            ("namelists", {"electrons": {"mixing_ndim": 4}}, "mixing_ndim = 4"),
        ],
        refused=[
            ({"ecutrho": 70}, "ecutrho is 70 Ry; expected at least four times ecutwfc, 80"),
            (
                {"namelists": {"SYSTEM": {"nspin": 2, "Degauss": 0.1, "nbnd": 9}}},
                "namelists.system sets degauss, nspin, which other options set",
            ),
        ],
        installed={"pseudo_dir": "/usr/share/espresso/pseudo"},
        accurate={"ecutwfc": 60, "ecutrho": 240, "conv_thr": 1e-10},
        out_of_reach={"kpoints": [1, 1, 1], "conv_thr": 1e-40},
        stops=[
            (bulk("Al"), {}, ODD),
            (
                bulk("AlAs", "zincblende", a=5.6),
                {"namelists": {"system": {"nosuchkey": 1}}},
                r"stopped: Error in routine read_namelists .*bad line in namelist &system",
            ),
            (
                bulk("AlAs", "zincblende", a=5.6),
                {"pseudo_dir": _STAND_INS},
                r"stopped: Error in routine readpp \(.*\): file \./Al\.UPF",
            ),
        ],
        missing=missing("pw.x"),
    ),
    # Its outputs are numbers of Quantum ESPRESSO in VASP's format; it has to sort these atoms.
    "VASP": Code(
        make=partial(Vasp, version="6.4.3", pp_path=str(DATA / "vasp")),
        atoms=distorted(bulk("AlAs", "zincblende", a=5.6).repeat((2, 1, 1)), 0.05),
        version="6.4.3",
        banner=" running    1 mpi-ranks, with    1 threads/rank, on    1 nodes",
        config="vasp",
        input=("INCAR", "AMIX"),
        unconverged=("mesh", '(name="NELM"> +)100', r"\g<1>4", "vasprun.xml"),
        options=[
            ("functional", "PBE", "GGA = PE"),
            ("functional", "revPBE", "GGA = RE"),
            ("kpoints", [1, 2, 3], "1 2 3"),
            ("encut", 410.5, "ENCUT = 410.5"),
            ("ediff", 3e-5, "EDIFF = 3e-05"),
            ("electronic_temperature", 250, f"SIGMA = {250 * kB}"),
            ("incar", {"IVDW": 12}, "IVDW = 12"),
            ("incar", {"LREAL": "Auto"}, "LREAL = Auto"),
            ("incar", {"LASPH": False}, "LASPH = .FALSE."),
            ("incar", {"DIPOL": [0.5, 0.5, 0.25]}, "DIPOL = 0.5 0.5 0.25"),
        ],
        refused=[
            ({"functional": "LDA"}, "functional is 'LDA'; expected PBE, PBEsol, revPBE"),
            (
                {"incar": {"ispin": 2, "Sigma": 0.1, "IVDW": 12}},
                "incar sets ISPIN, SIGMA, which other options set",
            ),
        ],
        tells_version=False,
    ),
    "GPAW": Code(
        make=partial(Gpaw),
        atoms=distorted(bulk("AlP", "zincblende", a=5.46), 0.05),
        version="22.8.0",
        banner="GPAW 22.8.0",
        config="gpaw",
        input=("label.json", "mixing"),
        unconverged=("mesh", '"converged": true', '"converged": false', "results.json"),
        options=[
            ("functional", "RPBE", '"functional": "RPBE",'),
            ("datasets", "RPBE", '"datasets": "RPBE",'),
            ("kpoints", [1, 2, 3], "3"),
            ("cutoff", 410.5, '"cutoff": 410.5,'),
            ("density", 3e-7, '"density": 3e-07,'),
            ("electronic_temperature", 250, f'"width": {250 * kB},'),
            ("parameters", {"maxiter": 17}, '"maxiter": 17'),
        ],
        refused=[
            (
                {"parameters": {"xc": "LDA", "spinpol": True, "maxiter": 17}},
                "parameters sets spinpol, xc, which other options set",
            ),
        ],
        installed={"cutoff": 300, "command": _gpaw_python()},
        accurate={"cutoff": 400, "density": 1e-7},
        out_of_reach={"kpoints": [1, 1, 1], "density": 1e-30, "parameters": {"maxiter": 10}},
        stops=[
            (bulk("Al"), {}, ODD),
            (
                bulk("AlAs", "zincblende", a=5.6),
                {"datasets": "PBEsol"},
                'GPAW stopped: FileNotFoundError: Could not find required PAW dataset .*Al.PBEsol"',
            ),
            (bulk("AlAs", "zincblende", a=5.6), {"functional": "no"}, 'Unknown functional: "no"'),
        ],
        missing=missing("gpaw"),
    ),
}


@pytest.fixture(params=CODES)
def code(request) -> Code:
    """Each of them."""
    return CODES[request.param]


@pytest.fixture
def output(tmp_path):
    """A stored output of which ``pattern`` is replaced -> folder that holds it."""

    def make(
        kind: str, pattern: str, replacement: str, name: str = "label.out", code: str = "CP2K"
    ) -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        shutil.copytree(CODES[code].stored(kind), folder, dirs_exist_ok=True)
        text, count = re.subn(pattern, replacement, (folder / name).read_text(), flags=re.DOTALL)
        assert count, f"{pattern} is not in {name}"
        (folder / name).write_text(text)
        return folder

    return make


_EXECUTABLE = """#!/bin/sh
echo "{banner}"
[ -e {input} ] || exit 1
echo "$OMP_NUM_THREADS threads" $(grep {mixing} {input}) >> {log}
cp {answers}/$(wc -l < {log} | tr -d " ")/* .
exit 1
"""


@pytest.fixture
def fake(tmp_path):
    """Folders -> an executable whose n-th run writes the files of the n-th of them."""

    def make(*folders: Path, code: Code = CODES["CP2K"]) -> str:
        answers = Path(tempfile.mkdtemp(dir=tmp_path))
        for number, folder in enumerate(folders, 1):
            shutil.copytree(folder, answers / str(number))
        executable = answers / "program"
        name, mixing = code.input
        executable.write_text(
            _EXECUTABLE.format(
                banner=code.banner,
                input=name,
                mixing=mixing,
                log=tmp_path / "log",
                answers=answers,
            )
        )
        executable.chmod(0o755)
        (tmp_path / "log").unlink(missing_ok=True)
        return str(executable)

    make.runs = lambda: (tmp_path / "log").read_text().splitlines()
    return make
