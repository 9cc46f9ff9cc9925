"""Attempts, time, threads, versions and files left behind of all programs."""

import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.calculators.output import NotConverged
from schnetpack_phonon.common.errors import UnavailableError
from tests.calculators.code_fixtures import CODES, MESHES
from tests.calculators.cp2k_fixtures import STORED, aluminium_phosphide
from tests.calculators.external_code.external_code_fixtures import INSTALLED, TELLING

# ---- runs


def test_next_mixing_where_the_density_does_not_converge(code, output, fake, monkeypatch):
    """And no more of them than are needed."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    diverged = output(*code.unconverged, code.name)
    command = fake(diverged, code.stored("mesh"), code.stored("mesh"), code=code)
    calculator = code.make(command=command, mixing=[0.4, 0.15, 0.1])
    labels = calculator.label(code.atoms)
    assert labels["energy"] == calculator.read_output(code.stored("mesh"), code.atoms)["energy"]
    assert [run.split()[0] for run in fake.runs()] == ["1", "1"]
    assert ["0.4" in fake.runs()[0], "0.15" in fake.runs()[1]] == [True, True]


def test_no_mixing_converges(code, output, fake):
    diverged = output(*code.unconverged, code.name)
    command = fake(diverged, diverged, code=code)
    with pytest.raises(NotConverged, match=f"{code.make().name}'s density did not converge"):
        code.make(command=command, mixing=[0.3, 0.2]).label(code.atoms)
    assert len(fake.runs()) == 2


def test_other_failures_are_not_tried_again(output, fake):
    with pytest.raises(CalculationFailed, match="no energy"):
        CP2K(command=fake(output("mesh", r"ENERGY\|", ""))).label(aluminium_phosphide())
    assert len(fake.runs()) == 1


def test_number_of_threads_is_the_worker_s(fake, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    CP2K(command=fake(STORED / "mesh")).label(aluminium_phosphide())
    assert fake.runs() == ["3 threads ALPHA 0.4"]


def test_nothing_stays_on_the_disk(code, fake, output, tmp_path, monkeypatch):
    """Neither where it runs nor among the temporary files, also after a failure."""
    diverged = output(*code.unconverged, code.name)
    command = fake(code.stored("mesh"), diverged, code=code)
    for name in ("here", "scratch"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    calculator = code.make(command=command, mixing=[0.4])
    calculator.label(code.atoms)
    with pytest.raises(CalculationFailed, match="did not converge"):
        calculator.label(code.atoms)
    assert not [*(tmp_path / "here").iterdir(), *(tmp_path / "scratch").iterdir()]


def test_time_limit(tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(CalculationFailed, match=r"longer than 0\.2 s: raise .*time_limit"):
        CP2K(command=str(slow), time_limit=0.2).label(aluminium_phosphide())


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_program_ends_with_a_killed_worker(tmp_path):
    slow, started = tmp_path / "slow", tmp_path / "pid"
    slow.write_text(f"#!/bin/sh\necho $$ > {started}\nexec sleep 60\n")
    slow.chmod(0o755)
    worker = multiprocessing.get_context("spawn").Process(
        target=CP2K(command=str(slow)).label, args=(aluminium_phosphide(),)
    )
    worker.start()
    wait_until(lambda: started.exists() and started.read_text().strip())
    program = Path("/proc", started.read_text().strip())
    assert program.exists()
    worker.kill()
    wait_until(lambda: not program.exists())


def test_executable_is_not_there(code):
    with pytest.raises(UnavailableError, match="cannot run 'no-such-program'"):
        code.make(command="no-such-program").label(code.atoms)


@pytest.mark.parametrize("name", TELLING)
def test_executable_is_asked_before_anything_is_calculated(name):
    calculator = CODES[name].make(command="no-such-program")
    named = f"cannot run 'no-such-program' .*install {calculator.name} .* set data.calculator.com"
    with pytest.raises(UnavailableError, match=named):
        calculator.check(CODES[name].atoms)


@pytest.mark.parametrize("command", ["echo", "false"])
@pytest.mark.parametrize("name", TELLING)
def test_executable_is_another_program(name, command):
    with pytest.raises(UnavailableError, match=rf"cannot run '{command}' \(it does not answer"):
        _ = CODES[name].make(command=command).code_version


def test_stored_labels_need_no_executable(code):
    calculator = code.make(command="no-such-program", version=code.version)
    calculator.check(code.atoms)
    assert calculator.code_version == f"{calculator.name} {code.version}"


def test_labels_of_another_version_are_not_computed(fake):
    with pytest.raises(UnavailableError, match=r"CP2K 2030\.1 .* is 2023\.1: set .*version=2023"):
        CP2K(command=fake(), version="2030.1").label(aluminium_phosphide())


def test_outputs_of_another_version_are_not_taken(code, fake):
    """A command may lead to another program on another machine."""
    command = fake(code.stored("mesh"), code=code)
    calculator = code.make(command=command, version="0.1")
    calculator.ask_version = lambda: "0.1"
    named = f"0.1 are needed, but '{command}' is {code.version}: set"
    with pytest.raises(UnavailableError, match=named):
        calculator.label(code.atoms)


def test_only_crystals(code, fake):
    slab = code.atoms.copy()
    slab.pbc[2] = False
    with pytest.raises(ValueError, match=r"Al\w+ is not periodic in 3 directions"):
        code.make(command=fake(code=code)).check(slab)


@pytest.mark.parametrize("kind", MESHES)
@pytest.mark.parametrize("name", INSTALLED.values())
def test_installed_program_writes_what_is_stored(name, kind, tmp_path, monkeypatch):
    """A new version that writes otherwise fails here."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = CODES[name]
    calculator = code.make(kpoints=MESHES[kind], **code.installed)
    labels = calculator.label(code.atoms)
    for key, expected in calculator.read_output(code.stored(kind), code.atoms).items():
        np.testing.assert_allclose(labels[key].squeeze(), expected, atol=1e-4, err_msg=key)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(name, case, marks=code.needed, id=f"{name} {case}")
        for name, code in CODES.items()
        for case in range(len(code.stops))
    ],
)
def test_installed_program_stops(name, case):
    code = CODES[name]
    atoms, options, message = code.stops[case]
    with pytest.raises(CalculationFailed, match=message):
        code.make(**(code.installed | options)).label(atoms)


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED.values())
def test_installed_program_does_not_converge(name):
    """In the steps that it has."""
    code = CODES[name]
    with pytest.raises(NotConverged):
        code.make(mixing=[0.4], **(code.installed | code.out_of_reach)).label(code.atoms)


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTALLED.values())
def test_mesh_is_a_supercell_at_gamma(name):
    """Three k-points along an axis, Gamma among them, against three cells in a row."""
    code = CODES[name]
    options = code.installed | code.accurate
    mesh = code.make(kpoints=[1, 1, 3], **options).label(code.atoms)
    row = code.make(kpoints=[1, 1, 1], **options).label(code.atoms.repeat((1, 1, 3)))
    for key in ("energy_per_atom", "stress", "vbm", "cbm", "band_gap"):
        np.testing.assert_allclose(mesh[key], row[key], atol=1e-3, err_msg=key)
    np.testing.assert_allclose(np.tile(mesh["forces"], (3, 1)), row["forces"], atol=5e-3)
    assert mesh["band_gap"] < mesh["band_gap_gamma"] - 0.05
    assert row["band_gap"] == row["band_gap_gamma"]
