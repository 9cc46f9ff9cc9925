"""A density counts as converged if the output says so and its energies agree."""

import re
from pathlib import Path

import pytest
from ase.calculators.calculator import CalculationFailed, FileIOCalculator

from schnetpack_phonon.calculators.output import NotConverged, OutOfTime
from schnetpack_phonon.calculators.reading import convergence
from schnetpack_phonon.calculators.reading.convergence import (
    check_calculator,
    check_cp2k,
    check_espresso_log,
    check_file,
)
from tests.calculators.code_fixtures import CODES, output  # noqa: F401

REACHED = "------- aborting loop because EDIFF is reached -------\n"
NOT_REACHED = "------- aborting loop EDIFF was not reached (unconverged)  -------\n"
HARD_STOP = "------- aborting loop because hard stop was set -------\n"
LAST = r"(.*<scstep>.*?e_fr_energy\"> +)\S+"  # energy after the last of four steps


def read(name: str, folder: Path) -> dict:
    return CODES[name].make().read_output(folder, CODES[name].atoms)


@pytest.mark.parametrize(
    ("nelm", "change", "outcar", "error"),
    [
        (100, 1e-7, "", None),
        (100, 1e-7, REACHED, None),
        (4, 1e-7, REACHED, None),
        (4, 1e-7, "", NotConverged),  # nothing says that the last step was the last needed
        (4, 1e-7, NOT_REACHED, NotConverged),
        (4, 8e-3, REACHED, NotConverged),  # VASP 5 always writes so
        (100, 8e-3, REACHED, NotConverged),
        (100, 8e-3, "", NotConverged),
        (100, 8e-3, HARD_STOP, OutOfTime),
        (100, 1e-7, HARD_STOP, OutOfTime),
        (100, 1e-7, HARD_STOP + REACHED, None),  # the last ionic step counts
    ],
)
@pytest.mark.parametrize("file", ["vasprun.xml", "OUTCAR"])
def test_vasp(output, file, nelm, change, outcar, error):  # noqa: F811
    """By steps, energies and the reason in OUTCAR; the same for OUTCAR alone."""
    text = (CODES["VASP"].stored("mesh") / "vasprun.xml").read_text()
    energy = float(re.findall(r'e_fr_energy"> +(\S+)', text)[-1])
    folder = output("mesh", LAST, rf"\g<1>{energy:.8f}", "vasprun.xml", "VASP")
    steps = list(re.finditer(r'e_fr_energy"> +(\S+)', text))
    before = steps[2]
    text = f"{text[: before.start(1)]}{energy - change:.8f}{text[before.end(1) :]}"
    text = re.sub(r'(name="NELM"> +)100', rf"\g<1>{nelm}", text)
    (folder / "vasprun.xml").write_text(text)
    if file == "OUTCAR":
        lines = f"   NELM   = {nelm};   NELMIN=  2\n   EDIFF  = 0.1E-05   stopping-criterion\n"
        for step in range(1, 5):
            lines += f"----- Iteration      1(   {step})  -----\n"
            lines += f" total energy-change (2. order) :{change if step == 4 else 1:.7E}  (0.1)\n"
        outcar = lines + outcar
        check = lambda: convergence._check_outcar(outcar)  # noqa: E731
    else:
        if outcar:
            (folder / "OUTCAR").write_text(outcar)
        check = lambda: read("VASP", folder)  # noqa: E731
    if error is None:
        check()
    else:
        with pytest.raises(error):
            check()


def test_forces_of_a_machine_learned_field():
    """VASP writes them without electronic steps."""
    with pytest.raises(CalculationFailed, match="machine-learned force field"):
        convergence._check_outcar("Iteration 1( 1)\n free  energy ML TOTEN  =  -24.1 eV\n")


def test_vasp_without_electronic_steps(output):  # noqa: F811
    folder = output("mesh", r"<scstep>.*</scstep>", "", "vasprun.xml", "VASP")
    with pytest.raises(CalculationFailed, match="has no electronic steps, NELM or EDIFF"):
        read("VASP", folder)


@pytest.mark.parametrize(
    ("achieved", "n_steps", "error", "expected"),
    [
        ("true", 7, 1e-9, None),
        ("true", 7, 1e-7, NotConverged),  # Hartree; twice as much in Ry
        ("false", 100, 1e-3, NotConverged),
        ("false", 3, 1e-3, OutOfTime),
        ("true", 0, 0.0, OutOfTime),  # as after a stop in the first step
    ],
)
def test_xml_of_espresso(output, achieved, n_steps, error, expected):  # noqa: F811
    control = "<electron_control><conv_thr>5e-9</conv_thr><max_nstep>100</max_nstep>"
    folder = output(
        "mesh",
        r"  <output>(.*?<convergence_achieved>)true(.*?<n_scf_steps>)7(.*?<scf_error>)[^<]*",
        rf"<input>{control}</electron_control></input><output>\g<1>{achieved}\g<2>{n_steps}"
        rf"\g<3>{error}",
        "label.xml",
        "Quantum ESPRESSO",
    )
    if expected is None:
        assert read("Quantum ESPRESSO", folder)
    else:
        with pytest.raises(expected):
            read("Quantum ESPRESSO", folder)


def test_time_that_ran_out(output):  # noqa: F811
    """Also if the output says that the density did not converge."""
    converged = r"convergence has been achieved in   \d+ iterations"
    folder = output("mesh", converged, "Maximum CPU time exceeded", "label.log", "Quantum ESPRESSO")
    with pytest.raises(OutOfTime, match="Quantum ESPRESSO ran out of time"):
        read("Quantum ESPRESSO", folder)
    with pytest.raises(OutOfTime):
        check_espresso_log("Maximum CPU time exceeded\nconvergence NOT achieved")
    with pytest.raises(OutOfTime, match="CP2K ran out of time"):
        check_cp2k("exceeded requested execution time\nSCF run NOT converged")


def test_files_that_ase_reads(tmp_path):
    """Codes are told apart by their files, so that their own words count."""
    stored = CODES["VASP"].stored("mesh") / "vasprun.xml"
    assert check_file(stored, {})
    unconverged = tmp_path / "vasprun.xml"
    unconverged.write_text(stored.read_text().replace('"NELM">   100', '"NELM">   4'))
    with pytest.raises(NotConverged):
        check_file(unconverged, {})
    (tmp_path / "OUTCAR").write_text(REACHED)
    assert check_file(unconverged, {})
    printed = tmp_path / "label.pwo"
    printed.write_text("     Program PWSCF v.6.7\n convergence NOT achieved after 100 iterations\n")
    with pytest.raises(NotConverged):
        check_file(printed, {})
    (tmp_path / "x.unheard").write_text("nothing\n")
    assert not check_file(tmp_path / "x.unheard", {})


def test_program_of_ase_that_says_nothing(caplog):
    """It is told once."""
    convergence._warn_once.cache_clear()
    for _ in range(2):
        check_calculator(FileIOCalculator(command="none"))
    assert [record.message for record in caplog.records] == [
        "FileIOCalculator of ASE does not say whether its density converged: labels are unchecked"
    ]
