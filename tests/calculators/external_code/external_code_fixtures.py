"""What the tests of this folder share."""

import pytest

from tests.calculators.code_fixtures import CODES

TELLING = [name for name, code in CODES.items() if code.tells_version]


# ---- the installed programs


INSTALLED = {
    name: pytest.param(name, marks=code.needed)
    for name, code in CODES.items()
    if code.installed is not None
}
