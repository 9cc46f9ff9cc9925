"""A program that a later step needs is missed before an earlier one is calculated."""

import pytest
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.common.errors import UnavailableError
from schnetpack_phonon.labels.labelling import label_job
from schnetpack_phonon.labels.monitor.programs import check_programs
from tests.data.data_fixtures import copper

HERE = AseCalculator(EMT)
AWAY = CP2K(command="no-such-program", version="2023.1")


def jobs(calculator):
    return [label_job(calculator, copper(0), "")]


@pytest.mark.parametrize(
    ("labels", "others", "missing", "named"),
    [
        # Nothing is known of what follows a relaxation.
        (
            HERE,
            {"phonons": AWAY},
            {"lattice": jobs(HERE)},
            r"data\.phonons\.calculator: cannot run",
        ),
        (HERE, {"phonons": AWAY}, {"force constants": jobs(AWAY)}, r"data\.phonons\.calculator: "),
        (AWAY, {"phonons": HERE}, {"force constants": jobs(HERE)}, r"data\.calculator: cannot run"),
        (AWAY, {"structure": HERE}, {"phonon ensemble": jobs(AWAY)}, r"data\.calculator: "),
        # All that it computes is in the store.
        (HERE, {"structure": AWAY}, {"force constants": jobs(HERE)}, None),
        (HERE, {"phonons": AWAY}, {"phonon ensemble": jobs(HERE)}, None),
        (AWAY, {"phonons": HERE}, {}, None),
        (AWAY, {"phonons": HERE}, {"ideal crystals": jobs(AWAY)}, None),
    ],
)
def test_what_is_needed(labels, others, missing, named):
    if named is None:
        check_programs(labels, others, lambda: missing)
    else:
        with pytest.raises(UnavailableError, match=named):
            check_programs(labels, others, lambda: missing)


@pytest.mark.parametrize(("labels", "others"), [(AWAY, {}), (HERE, {"phonons": HERE})])
def test_nothing_is_planned_where_nothing_can_be_missed(labels, others):
    check_programs(labels, others, lambda: pytest.fail("planned"))
