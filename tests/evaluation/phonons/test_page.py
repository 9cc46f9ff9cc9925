"""The page of spkphonon phonons."""

import pandas as pd
import pytest
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.evaluation.phonons import page
from tests.evaluation.thermal.thermal_fixtures import thermal_run


def test_the_calculator_of_the_data_has_its_phonons(tmp_path, monkeypatch):
    """Force constants of EMT beside those of its run, from the label store."""
    run = thermal_run(tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"phonons needs forces; the .*\(trained model\)"):
        page.phonon_report(run, tmp_path / "out")
    monkeypatch.setattr(page, "TrainedModel", lambda *_, **__: AseCalculator(EMT))
    text = page.phonon_report(run, tmp_path / "out", Trust(everything=True))
    assert "Cu3PdAu: 117 frequencies differ by 0.00 THz (rms)" in text
    table = pd.read_csv(tmp_path / "out" / "data" / "phonons.csv")
    assert table["rms difference"].max() < 1e-3
    modes = pd.read_csv(tmp_path / "out" / "data" / "bands_Cu3PdAu.csv")
    assert len(modes) == 117
    assert (tmp_path / "out" / "figures" / "bands_Cu3PdAu.png").stat().st_size > 10_000


def test_an_unfinished_run_is_named(tmp_path):
    with pytest.raises(RunError, match=r"none: config.yaml cannot be read"):
        page.phonon_report(tmp_path / "none", tmp_path / "out")
