"""How programs are run: version, attempts, time, threads, and what they leave behind.

CP2K stands for all of them.
"""

import tempfile

import pytest
from ase.calculators.calculator import CalculationFailed
from ase.units import Hartree

from schnetpack_phonon.calculators import UnavailableError
from schnetpack_phonon.cp2k import CP2K
from schnetpack_phonon.external_code import NotConverged
from tests.cp2k_fixtures import STORED, aluminium_phosphide


@pytest.fixture
def diverged(output):
    """As CP2K 2023.1 says it, which then goes on with forces that are worth nothing."""
    return output(
        "mesh",
        r"  \*\*\* SCF run converged in *\d+ steps \*\*\*",
        "  Leaving inner SCF loop after reaching   100 steps.\n\n"
        " *** WARNING in qs_scf.F:601 :: SCF run NOT converged ***",
    )


def test_next_mixing_where_the_density_does_not_converge(diverged, fake, monkeypatch):
    """And no more of them than are needed."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command = fake(diverged, STORED / "mesh", STORED / "mesh")
    labels = CP2K(command=command, mixing=[0.4, 0.15, 0.1]).label(aluminium_phosphide())
    assert labels["energy"] == pytest.approx(-8.658380767126076 * Hartree)
    assert fake.runs() == ["1 threads ALPHA 0.4", "1 threads ALPHA 0.15"]


def test_no_mixing_converges(diverged, fake):
    with pytest.raises(NotConverged, match="density did not converge"):
        CP2K(command=fake(diverged, diverged), mixing=[0.3, 0.2]).label(aluminium_phosphide())
    assert [run.split()[-1] for run in fake.runs()] == ["0.3", "0.2"]


def test_other_failures_are_not_tried_again(output, fake):
    with pytest.raises(CalculationFailed, match="no energy"):
        CP2K(command=fake(output("mesh", r"ENERGY\|", ""))).label(aluminium_phosphide())
    assert len(fake.runs()) == 1


def test_number_of_threads_is_the_worker_s(fake, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    CP2K(command=fake(STORED / "mesh")).label(aluminium_phosphide())
    assert fake.runs() == ["3 threads ALPHA 0.4"]


def test_nothing_stays_on_the_disk(fake, output, tmp_path, monkeypatch):
    """Neither where it runs nor among the temporary files, also after a failure."""
    command = fake(STORED / "mesh", output("mesh", r"ENERGY\|", ""))
    for name in ("here", "scratch"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    CP2K(command=command).label(aluminium_phosphide())
    with pytest.raises(CalculationFailed, match="no energy"):
        CP2K(command=command).label(aluminium_phosphide())
    assert not [*(tmp_path / "here").iterdir(), *(tmp_path / "scratch").iterdir()]


def test_time_limit(tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(CalculationFailed, match=r"longer than 0\.2 s: raise .*time_limit"):
        CP2K(command=str(slow), time_limit=0.2).label(aluminium_phosphide())


def test_executable_is_not_there():
    calculator = CP2K(command="no-such-cp2k")
    named = "cannot run 'no-such-cp2k' .*install CP2K .* or set data.calculator.command"
    with pytest.raises(UnavailableError, match=named):
        calculator.check(aluminium_phosphide())
    with pytest.raises(UnavailableError, match="cannot run 'no-such-cp2k'"):
        calculator.label(aluminium_phosphide())


def test_stored_labels_need_no_executable(fake):
    calculator = CP2K(command="no-such-cp2k", version="2023.1")
    calculator.check(aluminium_phosphide())
    assert calculator.code_version == CP2K(command=fake()).code_version


def test_labels_of_another_version_are_not_computed(fake):
    with pytest.raises(UnavailableError, match=r"CP2K 2030\.1 .* is 2023\.1: set .*version=null"):
        CP2K(command=fake(), version="2030.1").label(aluminium_phosphide())


def test_executable_is_not_cp2k():
    with pytest.raises(UnavailableError, match=r"cannot run 'echo' .*does not answer --version"):
        _ = CP2K(command="echo").code_version
    with pytest.raises(UnavailableError, match=r"cannot run 'false' .*data.calculator.command"):
        _ = CP2K(command="false").code_version


def test_code_version(fake):
    assert CP2K(command=fake()).code_version == "CP2K 2023.1"


def test_only_crystals(fake):
    slab = aluminium_phosphide()
    slab.pbc[2] = False
    with pytest.raises(ValueError, match="AlP is not periodic in 3 directions"):
        CP2K(command=fake()).check(slab)
