"""Wrong units and signs of labels are found by what labels say of each other."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from schnetpack_phonon.common.errors import UnitError
from schnetpack_phonon.labels.imported.checks import check_labels
from schnetpack_phonon.labels.imported.frames import Frame


@pytest.fixture(scope="module")
def frames():
    """Twelve thermal frames that have nothing to do with each other."""
    found = []
    for seed in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.02, seed=seed)
        atoms.calc = EMT()
        labels = {
            "energy": np.array([atoms.get_potential_energy()]),
            "forces": atoms.get_forces(),
            "stress": atoms.get_stress(voigt=False)[None],
            "band_gap": np.ones(1),
            "vbm": np.ones(1),
            "cbm": np.full(1, 2.0),
        }
        atoms.calc = None
        found.append(Frame(atoms, labels))
    return found


def changed(frames, **factors):
    return [
        Frame(f.atoms, {k: factors.get(k, 1.0) * v for k, v in f.labels.items()}) for f in frames
    ]


def test_right_units(frames, caplog):
    caplog.set_level("INFO")
    check_labels(frames, "md.xyz")
    (message,) = caplog.messages
    assert message.startswith("md.xyz: energies change by ")


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"forces": -1.0}, r"change by -[01]\..* times the work of the forces; expected 1"),
        ({"energy": 1 / 27.2114}, r"change by 0\.03"),
        ({"forces": 1 / 51.4221}, r"change by 5[0-3]"),
        ({"stress": 1602.1766}, r"frame 0 of md.xyz has a stress of .*; expected eV/Ang\^3"),
        ({"band_gap": -1.0}, r"a band gap of -1; expected 0 to 30 eV"),
        ({"band_gap": 1.1}, r"band gap of 1\.1 eV, but edges 1 eV apart"),
    ],
)
def test_wrong_units(frames, factors, message):
    with pytest.raises(UnitError, match=message):
        check_labels(changed(frames, **factors), "md.xyz")


def test_too_few_frames_to_tell(frames, caplog):
    caplog.set_level("INFO")
    check_labels(changed(frames[:3], forces=-1.0), "md.xyz")
    assert "too few frames" in caplog.text
