"""What the tests of this folder share."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from schnetpack_phonon.labels.labelling import Job
from tests.labels.labelling.labelling_fixtures import count


@pytest.fixture
def jobs(tmp_path):
    def make(*numbers: int) -> list[Job]:
        return [Job(f"h{n}", f"job {n}", count, (tmp_path, n)) for n in numbers]

    make.calls = lambda: sorted(map(int, (tmp_path / "calls").read_text().split()))
    return make


@pytest.fixture
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor
