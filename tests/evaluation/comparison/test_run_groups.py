"""Runs that differ only in their seeds are averaged, others are not."""

import shutil
from dataclasses import replace

import ase.db
import pytest

from schnetpack_phonon.common.errors import ComparisonError
from schnetpack_phonon.evaluation.comparison.run_groups import group_runs, training_differences
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.evaluation.test_sets import read_test_set
from tests.evaluation.comparison.comparison_fixtures import databases, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    databases(folder)
    return folder


def grouped(folder, *options):
    """(name of the database, seed, training rows, further config, test rows) of each run."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    runs = []
    for k, (name, seed, train, config, *test) in enumerate(options):
        path = folder / "data" / f"{name}.db"
        own = {"config": config, "test": test[0] if test else range(8, 16)}
        runs.append(read_run(write_run(folder / "runs" / str(k), path, seed, train, **own)))
    sets = {run.datapath: read_test_set(run.datapath) for run in runs}
    return group_runs(runs, sets)


def test_seeds_make_one_model(folder):
    table, notes = grouped(folder, ("phonon", 1, [1, 2], None), ("phonon", 2, [3, 4], None))
    assert list(table["model"]) == ["phonon, N = 2"] * 2
    assert list(table["n_labels"]) == [3, 3]
    assert not table["own_splits"].any()
    assert notes == []


def test_other_settings_make_other_models(folder):
    slow = {"globals": {"model_path": "best_model", "lr": 1e-4}}
    table, notes = grouped(folder, ("phonon", 1, [1, 2], None), ("phonon", 2, [1, 2], slow))
    assert table["model"].nunique() == 2
    assert any("lr=0.0001" in name for name in table["model"])
    assert any("not averaged" in note and "globals.lr" in note for note in notes)


SPLITS = [range(8, 16), range(7, 15), range(15, 7, -1)]  # the first and the last are one


def test_splits_that_differ_with_the_seed_are_averaged_and_named(folder):
    table, notes = grouped(folder, *(("phonon", k, [1, 2], None, s) for k, s in enumerate(SPLITS)))
    assert set(table["model"]) == {"phonon, N = 2, own test splits"}
    assert table["own_splits"].all()
    (note,) = notes
    assert "each seed has its own test set" in note
    assert "NestedSplit" in note


def test_splits_that_differ_beside_the_seed_make_other_models(folder):
    """Of one seed, so other settings must have made them."""
    table, notes = grouped(folder, *(("phonon", 1, [1, 2], None, s) for s in SPLITS))
    assert not table["own_splits"].any()
    assert table["model"][0] == table["model"][2] != table["model"][1]
    assert any("not averaged over all: they differ in test split" in note for note in notes)


def test_other_settings_are_named_without_the_splits_of_their_seeds(folder):
    slow = {"globals": {"model_path": "best_model", "lr": 1e-4}}
    runs = [("phonon", 1, [1, 2], None, SPLITS[0]), ("phonon", 2, [1, 2], slow, SPLITS[1])]
    _, notes = grouped(folder, *runs)
    assert any(note.endswith("they differ in globals.lr") for note in notes)


def stopping(package="pytorch_lightning.callbacks", **options):
    return {"_target_": f"{package}.EarlyStopping", "monitor": "val_loss"} | options


def monitor(package="pytorch_lightning.callbacks", name="LearningRateMonitor", **options):
    return {"_target_": f"{package}.{name}"} | options


EMA = "schnetpack.train.ExponentialMovingAverage"
CHECKPOINT = {"_target_": "schnetpack.train.ModelCheckpoint", "monitor": "val_loss"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"a": monitor(), "b": monitor(name="TQDMProgressBar"), "c": None}),
        ({"lr_monitor": monitor()}, {"lr_monitor": monitor(logging_interval="step")}),
        ({}, {"a": monitor("schnetpack_phonon.callbacks", "ReportCallback", model_path="b")}),
        ({}, {"a": monitor("schnetpack_phonon.evaluation", "BondAttributionCallback")}),
        (
            {"a": monitor("schnetpack_phonon.callbacks", "CPUThreads", n_threads=1)},
            {"b": monitor("schnetpack_phonon.evaluation", "CPUThreads", n_threads=2)},
        ),
        ({"early_stopping": stopping()}, {"stop": stopping()}),
        ({"a": stopping(), "b": {"_target_": EMA}}, {"a": {"_target_": EMA}, "b": stopping()}),
        (
            {"a": stopping(), "b": stopping(monitor="train_loss")},
            {"a": stopping(monitor="train_loss"), "b": stopping()},
        ),
        ({"a": CHECKPOINT | {"dirpath": "one"}}, {"a": CHECKPOINT | {"dirpath": "other"}}),
    ],
)
def test_callbacks_that_cannot_change_a_model(folder, one, other):
    configs = [{"callbacks": one}, {"callbacks": other, "logger": {"b": 2}}]
    table, notes = grouped(folder, *(("phonon", k, [1], c) for k, c in enumerate(configs)))
    assert list(table["model"]) == ["phonon, N = 1"] * 2
    assert notes == []


def test_settings_that_only_print_cannot_change_a_model(folder):
    quiet = {"enable_model_summary": False, "enable_progress_bar": False}
    trainers = [
        {"max_epochs": 2},
        {"max_epochs": 2, "profiler": "simple", **quiet},
        {"max_epochs": 2, "log_every_n_steps": 5},
    ]
    runs = (("phonon", k, [1], {"trainer": own}) for k, own in enumerate(trainers))
    table, notes = grouped(folder, *runs)
    assert list(table["model"]) == ["phonon, N = 1"] * 3
    assert notes == []


def test_long_settings_are_cut_and_told_apart(folder):
    """Names have to fit a page; what is cut off may not make two models one."""
    long = {"model": {"one_of_the_settings": "x" * 80}}
    table, _ = grouped(
        folder,
        ("phonon", 1, [1], long | {"a": {"b": 1}}),
        ("phonon", 2, [1], long | {"a": {"c": 1}}),
        ("phonon", 3, [1], {"model": {"one_of_the_settings": "x" * 79 + "y"}}),
    )
    assert table["model"].nunique() == 3
    assert table["model"].map(len).max() < 90


def test_trainings_that_differ_beside_the_data_are_told(folder):
    short = {"trainer": {"max_epochs": 25}}
    table, _ = grouped(
        folder,
        ("phonon", 1, [1], {"trainer": {"max_epochs": 60}}),
        ("random", 1, [1, 2], short),
        ("random", 2, [1, 3], short),
    )
    one, other, again = table.to_dict("records")
    assert training_differences(one, other) == ["trainer.max_epochs (60 / 25)"]
    assert training_differences(other, again) == []


@pytest.mark.parametrize(
    ("one", "other", "setting"),
    [
        (stopping(patience=5), stopping(patience=6), "EarlyStopping.patience=6"),
        ({"_target_": EMA, "decay": 0.9}, {"_target_": EMA, "decay": 0.99}, "Average.decay=0.99"),
        (CHECKPOINT, CHECKPOINT | {"monitor": "train_loss"}, "ModelCheckpoint.monitor=train_loss"),
        (stopping(), stopping("somebody.else"), "EarlyStopping"),
        (None, monitor(name="StochasticWeightAveraging", swa_lrs=0.1), "swa_lrs=0.1"),
        (None, monitor(name="GradientAccumulationScheduler", scheduling=2), "scheduling=2"),
        (None, monitor("somebody.else", "ReportCallback", x=1), "ReportCallback, x=1"),
    ],
)
def test_other_callbacks_make_other_models(folder, one, other, setting):
    """Also when their names in the configuration are the same, or different."""
    for name in ("a", "b"):
        configs = [{"callbacks": {"a": one}}, {"callbacks": {name: other}}]
        table, notes = grouped(folder, *(("phonon", k, [1], c) for k, c in enumerate(configs)))
        assert table["model"].nunique() == 2
        assert setting in table["model"][1]
        assert any("not averaged over all: they differ in callbacks." in note for note in notes)


def test_classes_of_ours_are_the_same_wherever_they_are(folder):
    """Their modules have moved, and configurations name them."""
    heads = [
        {"model": {"output_modules": [{"_target_": f"schnetpack_phonon.{place}"}]}}
        for place in ("heads.BandGap", "models.BandGap", "models.heads.BandGap", "models.Intensive")
    ]
    table, _ = grouped(folder, *(("phonon", k, [1], c) for k, c in enumerate(heads)))
    assert table["model"][0] == table["model"][1] == table["model"][2] != table["model"][3]


def test_one_seed_is_named_and_one_seed_twice(folder):
    runs = [(name, 1, [1], None) for name in ("phonon", "phonon", "random")]
    table, notes = grouped(folder, *runs)
    assert "one seed only, so no spread: random (one-sided), N = 1" in notes
    assert "the same model and seed several times, so spreads are too small: 0, 1" in notes
    assert table["n_train"].to_list() == [1, 1, 1]


def test_units_of_properties_that_are_not_ours_must_agree(folder):
    """Those of ours are converted."""
    run = write_run(folder / "other_units", folder / "data" / "phonon.db", 1, [1])
    text = (run / "config.yaml").read_text()
    units = "data:\n  property_units: {energy_per_atom: kcal/mol, my_gap: kcal/mol}\n"
    (run / "config.yaml").write_text(text.replace("data:\n", units))
    found = read_run(run)
    own = read_test_set(found.datapath)
    own = replace(own, labels=own.labels.assign(my_gap=1.0), units={**own.units, "my_gap": "eV"})
    with pytest.raises(ComparisonError, match=r"my_gap is in eV in .* kcal/mol in"):
        group_runs([found], {found.datapath: own})


def test_calculators_must_agree(folder):
    other = folder / "data" / "other.db"
    shutil.copy(folder / "data" / "phonon.db", other)
    with ase.db.connect(other) as db:
        metadata = db.metadata
        metadata["schnetpack_phonon"]["settings"]["calculator"]["arguments"] = ["other"]
        db.metadata = metadata
    runs = [
        read_run(write_run(folder / "calculators" / name, folder / "data" / f"{name}.db", 1, [1]))
        for name in ("phonon", "other")
    ]
    sets = {run.datapath: read_test_set(run.datapath) for run in runs}
    with pytest.raises(ComparisonError, match=r"different calculators:\n  arguments: .*other"):
        group_runs(runs, sets)
