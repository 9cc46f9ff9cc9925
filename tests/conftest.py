"""What several test modules share: a crystal of springs, EMT, a pool, a database, broken disks."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import tblite.interface  # noqa: F401  # before torch 2.4, whose libgomp is too old for tblite
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.common.executors import process_pool
from schnetpack_phonon.ensembles.base import Snapshot
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.phonons.harmonic import harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.calculators.code_fixtures import code, fake, output  # noqa: F401
from tests.ensembles.ensemble_fixtures import ag3sbr, nacl  # noqa: F401
from tests.phonons.force_constants_fixtures import (  # noqa: F401
    alloy,
    cubic,
    cubic_springs,
    layers,
    pair,
)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the host leaves splitting.lock where it runs


@pytest.fixture(autouse=True)
def _without_choices_of_hydra():
    """Of a command that the test runs in this process: later tests must not find them."""
    yield
    HydraConfig.instance().cfg = None


@pytest.fixture
def compose_train(tmp_path, monkeypatch):
    """Overrides -> the configuration of ``spktrain`` in a folder without configs of the user's."""
    (tmp_path / "configs").mkdir()  # SchNetPack looks there, and Hydra warns where it is missing
    monkeypatch.setenv("PWD", str(tmp_path))

    def composed(*overrides: str) -> DictConfig:
        with initialize_config_module("schnetpack.configs", version_base="1.2"):
            return compose("train", [*overrides])

    return composed


@pytest.fixture(scope="session")
def central_springs():
    """(atoms, {length: stiffness in eV/Ang^2}) -> force constants, summed over all images."""

    def force_constants(atoms: Atoms, springs: dict[float, float]) -> np.ndarray:
        result = np.zeros((len(atoms), len(atoms), 3, 3))
        i, j, vector = neighbor_list("ijD", atoms, max(springs) + 0.01)
        length = np.linalg.norm(vector, axis=1)
        for l0, stiffness in springs.items():
            unit = vector / length[:, None] * (np.abs(length - l0) < 0.01)[:, None]
            block = stiffness * unit[:, :, None] * unit[:, None, :]
            np.add.at(result, (i, j), -block)
            np.add.at(result, (i, i), block)
        return result

    return force_constants


@pytest.fixture(scope="session")
def rock_salt() -> Crystal:
    """Two atoms in the primitive cell, 16 in the supercell."""
    return Crystal("NaCl", bulk("NaCl", "rocksalt", a=5.6), supercell_matrix([2, 2, 2]))


@pytest.fixture(scope="session")
def stable(rock_salt, central_springs) -> np.ndarray:
    """Force constants of springs between first and second neighbours: no soft mode."""
    return central_springs(rock_salt.supercell, {2.8: 4.0, 2.8 * 2**0.5: 1.0})


@pytest.fixture(scope="session")
def unstable(rock_salt, central_springs) -> np.ndarray:
    """The same with a repulsion between second neighbours: imaginary modes."""
    return central_springs(rock_salt.supercell, {2.8: 4.0, 2.8 * 2**0.5: -0.2})


@pytest.fixture(scope="session")
def model(rock_salt, stable):
    return harmonic_model(rock_salt.supercell, stable, Instabilities("error", floor=0.1))


@pytest.fixture(scope="session")
def emt() -> AseCalculator:
    return AseCalculator(EMT)


@pytest.fixture(scope="session")
def pool():
    with process_pool(max_workers=2) as executor:
        yield executor


@pytest.fixture(scope="session")
def make_snapshots():
    """Parents -> one displaced Cu2 or Cu3 snapshot each."""

    def make(parents: list[str]) -> list[Snapshot]:
        rng = np.random.default_rng(0)
        snapshots = []
        for index, parent in enumerate(parents):
            ideal = bulk("Cu").repeat((1, 1, 2 + index % 2))
            atoms = ideal.copy()
            atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
            snapshots.append(
                Snapshot(atoms, ideal, "Cu", "random", "amplitude", 0.1, 7, index, parent)
            )
        return snapshots

    return make


@pytest.fixture
def full_disk():
    """Context in which no file can grow beyond a number of bytes."""

    @contextmanager
    def limit(n_bytes: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def read_only():
    """Context in which nothing can be written to its folder, not even by root."""
    with TemporaryDirectory() as name:

        @contextmanager
        def forbid():
            user = os.geteuid()
            forbid.folder.chmod(0o555)
            if user == 0:
                os.seteuid(65534)
            try:
                yield
            finally:
                os.seteuid(user)
                forbid.folder.chmod(0o755)

        forbid.folder = Path(name)
        yield forbid


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that has no locks, such as NFS without its lock manager."""

    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)


@pytest.fixture
def store(tmp_path) -> LabelStore:
    return LabelStore(tmp_path / "labels" / "store.jsonl")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """EnsembleData with its database made; not to be changed."""
    from tests.data.data_fixtures import ensemble_data  # loads torch, which most tests do without

    data = ensemble_data(tmp_path_factory.mktemp("built"))
    data.prepare_data()
    return data
