"""From folders of runs to a page, and what it says."""

import re

import pandas as pd
import pytest

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.data.export import write_extxyz
from schnetpack_phonon.evaluation.comparison.page import compare
from tests.evaluation.comparison.comparison_fixtures import databases, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    for name, path in databases(folder).items():
        for seed in (1, 2):
            for n in (4, 6, 8):
                run = folder / "runs" / f"{name}_n{n}_seed{seed}"
                write_run(run, path, seed, train=[0, 15, 1, 14, 2, 13, 3, 12][:n], val=[9])
    (folder / "runs" / "broken").mkdir()
    (folder / "runs" / "broken" / "config.yaml").write_text("a: [1")
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return folder / "report", compare([folder / "runs"], folder / "report")


def test_claims_are_the_ratios_at_the_largest_number(report):
    out, printed = report
    table = pd.read_csv(out / "data" / "ratios.csv")
    row = table[(table["n_train"] == 8) & (table["test_set"] == "phonon")].iloc[0]
    text = f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    (claim,) = (line for line in printed.splitlines() if line.startswith("Tested on phonon"))
    assert "8 training structures each" in claim
    assert "2 seeds" in claim
    assert text in claim
    assert printed.count("Tested on") == 1
    head = next(line for line in printed.splitlines() if line.startswith("| error"))
    assert head.count("trained on") == 2  # ensembles, of 8 structures each
    other = table[(table["n_train"] == 8) & (table["test_set"] != "phonon")].iloc[0]
    ratio = f"{other['ratio']:.2f} [{other['low']:.2f}, {other['high']:.2f}]"
    lines = [line for line in (out / "report.md").read_text().splitlines() if ratio in line]
    assert other["test_set"] in lines[0].split("|")[1]


def test_page_has_all_parts(report):
    out, printed = report
    page = (out / "index.html").read_text()
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles == [
        "What came out",
        "Every model on every test set",
        "How many labels",
        "By temperature and amplitude",
        "What the data cover",
        "Runs, settings, data, cost",
    ]
    assert "broken" in page
    assert "broken" in printed
    assert len(page) < 10_000_000
    names = {path.stem for path in (out / "data").iterdir()}
    assert {"errors", "ratios", "power_laws", "labels_needed", "crossings", "runs"} <= names
    for name in ("cross_tests", "learning_curves"):
        for suffix in ("png", "svg"):
            assert (out / "figures" / f"{name}.{suffix}").is_file()


def test_one_run_says_that_there_is_no_spread(folder, tmp_path):
    printed = compare([folder / "runs" / "phonon_n8_seed1"], tmp_path / "report")
    assert "one seed only, so no spread: phonon, N = 8" in printed
    assert "nothing to compare with" in printed


def test_more_test_sets(folder, tmp_path):
    write_extxyz(folder / "data" / "random.db", tmp_path / "md.extxyz")
    compare([folder / "runs" / "phonon_n8_seed1"], tmp_path / "report", [tmp_path / "md.extxyz"])
    table = pd.read_csv(tmp_path / "report" / "data" / "errors.csv")
    assert set(table["test_set"]) == {"phonon", "md"}
    assert table.set_index("test_set").loc["md", "n"].tolist() == [16, 16]


def test_nothing_to_compare(tmp_path):
    with pytest.raises(RunError, match="no run in"):
        compare([tmp_path], tmp_path / "report")
    assert not (tmp_path / "report").exists()
