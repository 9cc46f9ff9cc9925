"""Checks of options, and errors that users see without a traceback."""

import pytest

from schnetpack_phonon.common import errors
from schnetpack_phonon.common.errors import check_at_least, check_choice, check_positive

NAN = float("nan")


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_positive(a=1, distance=0), "distance is 0; expected > 0"),
        (lambda: check_positive("Ang", a=1, b=NAN), "b is nan Ang; expected > 0"),
        (lambda: check_at_least(2, n=2, steps=1.5), "steps is 1.5; expected >= 2"),
        (lambda: check_at_least(0, "K", t=NAN), "t is nan K; expected >= 0"),
        (lambda: check_at_least(1, n="many"), "n is 'many'; expected a number"),
        (lambda: check_choice(("a", "b"), one="a", two="c"), "two is 'c'; expected a, b"),
    ],
)
def test_checks(check, message):
    with pytest.raises(ValueError, match=rf"^{message}$"):
        check()


def test_all_errors_have_one_base():
    """The commands print the message of a PhononError alone."""
    here = (e for e in vars(errors).values() if getattr(e, "__module__", "") == errors.__name__)
    own = [e for e in here if isinstance(e, type)]
    assert len(own) > 10
    assert all(issubclass(e, errors.PhononError) for e in own)
    assert "died 3 times" in str(errors.DeadWorkerError())
