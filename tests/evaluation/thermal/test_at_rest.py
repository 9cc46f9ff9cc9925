"""What changes with temperature count from."""

from types import SimpleNamespace

import numpy as np

from schnetpack_phonon.evaluation.thermal.at_rest import crystal_at_rest


class Models:
    """Two of them, which predict 1 and 3 for everything."""

    keys = ("band_gap", "vbm", "cbm")

    def __call__(self, structures):
        return {key: np.array([[1.0], [3.0]]) for key in self.keys}


def test_labels_come_before_predictions():
    """Metals have no CBM, other properties no prediction: such labels count for nothing."""
    labels = {"band_gap": [5.0], "cbm": [np.nan], "forces": [[0.0, 0.0, 0.0]], "energy": [7.0]}
    found = crystal_at_rest(Models(), SimpleNamespace(supercell=None), labels)
    assert found.labelled == {"band_gap": 5.0}
    assert [found.source(key) for key in Models.keys] == ["labelled", "predicted", "predicted"]
    assert [found.zero(key).tolist() for key in ("band_gap", "vbm")] == [[5.0, 5.0], [1.0, 3.0]]
    rows = [(row["property"], row["at_rest"], row["value"]) for row in found.rows()]
    assert rows == [
        ("band_gap", "predicted", 2.0),
        ("band_gap", "labelled", 5.0),
        ("vbm", "predicted", 2.0),
        ("cbm", "predicted", 2.0),
    ]
