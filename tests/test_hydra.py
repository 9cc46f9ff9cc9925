"""Our configs are found by SchNetPack's commands from any folder and by no other Hydra app."""

import os
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.errors import InstantiationException, MissingConfigException
from hydra.utils import instantiate
from omegaconf import MissingMandatoryValue, OmegaConf

import schnetpack_phonon
from schnetpack_phonon._hydra import SchnetpackPhononSearchPath, config_folder, host_configs
from schnetpack_phonon.models.elastic_response import ElasticResponse, with_elastic_response
from schnetpack_phonon.models.hamiltonian.environment import NoFeatures

CONFIGS = config_folder()
EXPERIMENT = "experiment=phonon_antiperovskite"


def search_path(*elements) -> ConfigSearchPath:
    path = ConfigSearchPathImpl()
    for provider, place in elements:
        path.append(provider, place)
    SchnetpackPhononSearchPath().manipulate_search_path(path)
    return path


@pytest.mark.parametrize(
    "main", ["pkg://schnetpack/configs", "pkg://schnetpack.configs", str(host_configs())]
)
def test_host_sees_us_once(main):
    path = search_path(("main", main))
    SchnetpackPhononSearchPath().manipulate_search_path(path)
    assert [e.provider for e in path.get_path()] == ["main", "schnetpack_phonon"]


def test_missing_configs_of_the_user_are_no_news():
    """SchNetPack looks there; Hydra's warning would come before every command."""
    text = "provider=hydra.searchpath in main, path={} is not available."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search_path(("main", "pkg://schnetpack/configs"))
        warnings.warn(text.format("/home/me/configs"), stacklevel=1)
        with pytest.raises(UserWarning, match="elsewhere"):
            warnings.warn(text.format("/home/me/elsewhere"), stacklevel=1)


@pytest.mark.parametrize(
    "elements", [[], [("main", "pkg://other.configs")], [("other", "pkg://schnetpack.configs")]]
)
def test_others_do_not(elements):
    assert [e.provider for e in search_path(*elements).get_path()] == [p for p, _ in elements]


def test_copy_of_the_same_name_is_not_ignored_silently(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "configs" / "experiment" / "phonon_antiperovskite.yaml"
    copy.parent.mkdir(parents=True)
    copy.write_text("seed: 7")
    with pytest.warns(UserWarning, match=f"{copy} is ignored"):
        search_path(("main", "pkg://schnetpack/configs"))


def test_composes_in_an_empty_folder(tmp_path):
    run = subprocess.run(
        [Path(sys.executable).parent / "spktrain", EXPERIMENT, "data/ensemble=random", "--cfg=job"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    config = OmegaConf.create(run.stdout)
    assert config.data.ensemble._target_ == "schnetpack_phonon.ensembles.RandomEnsemble"
    assert config.seed == 42
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group", ["data/ensemble", "data/calculator", "data/structure"])
def test_unknown_choice_names_the_choices(group, compose_train):
    with pytest.raises(MissingConfigException) as error:
        compose_train(EXPERIMENT, f"{group}=nonsense")
    for option in (CONFIGS / group).glob("*.yaml"):
        assert option.stem in str(error.value)


PARTS = ("soft_modes", "shipped")  # chosen by the other choices
CHOICES = [f for f in sorted((CONFIGS / "data").glob("*/*.yaml")) if f.parent.name not in PARTS]


@pytest.mark.parametrize("file", CHOICES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_every_choice_instantiates_or_says_what_it_needs(file, compose_train):
    group = file.parent.name
    own = ["++data.structure.path=POSCAR"] if group == "phonons" else []
    given = EXPERIMENT, f"data/{group}={file.stem}", "run.work_dir=."
    config = compose_train(*given, *own).data[group]
    if OmegaConf.missing_keys(config) or file.stem == "mean":  # of which trajectory?
        with pytest.raises((MissingMandatoryValue, InstantiationException, ValueError)):
            instantiate(config)()  # what is partial says it when it is called
    else:
        instantiate(config)


@pytest.mark.parametrize(
    ("overrides", "frequency"),
    [
        ([], 1.5),
        (["data/structure=mixed_antiperovskite"], 1.5),
        (["data/structure=file"], 0),
        (["data/phonons=phonopy"], 0),
        (["data.phonons.instabilities.min_frequency=0"], 0),
    ],
)
def test_soft_modes_are_guarded_in_the_crystals_of_the_experiment_only(
    overrides, frequency, compose_train
):
    config = compose_train(f"{EXPERIMENT}_xtb", *overrides).data
    assert config.phonons.instabilities.min_frequency == frequency


@pytest.mark.parametrize(
    ("overrides", "shipped"),
    [
        ([], True),
        (["data/ensemble=random"], True),
        (["data/structure=mixed_antiperovskite"], True),
        (["data/calculator=gfn1_nox"], False),
        (["data/structure=file"], False),
    ],
)
def test_labels_of_the_package_are_taken_with_their_settings(overrides, shipped, compose_train):
    """Of their crystals and code; nothing of them is left with others."""
    config = compose_train(EXPERIMENT, *overrides).data
    assert config.shipped_labels == ("antiperovskite_pbesol.jsonl" if shipped else None)
    assert config.ensemble.n_snapshots == (10 if shipped else 50)
    assert config.phonons.distance == (0.06 if shipped else 0.03)
    assert config.calculator.get("version") == ("2023.1" if shipped else None)


def test_force_constants_of_the_user_are_not_those_of_the_labels(compose_train):
    """The settings of finite displacements are none of phonopy's files."""
    config = compose_train(EXPERIMENT, "data/phonons=phonopy", "data.phonons.path=POSCAR")
    assert instantiate(config.data.phonons, work_dir=".")


@pytest.mark.parametrize("study", ["phonon_antiperovskite", "phonon_study"])
def test_former_names_of_experiments_are_there(study, compose_train):
    now, before = (compose_train(f"experiment={name}") for name in (study, f"{study}_dft"))
    assert (now.run.experiment, before.run.experiment) == (study, f"{study}_dft")
    now.run.experiment = before.run.experiment
    assert now == before


def test_renormalised_phonons_need_no_guard(compose_train):
    assert (
        "instabilities"
        not in compose_train(f"{EXPERIMENT}_xtb", "data/phonons=renormalised").data.phonons
    )


@pytest.mark.parametrize(
    "experiment", ["phonon_elastic", "phonon_elastic_response", "phonon_forces"]
)
def test_experiments_with_derivatives_have_a_smooth_model(experiment, compose_train):
    """Strain, a smooth cutoff, and every label that is loaded has its output."""
    config = compose_train(f"experiment={experiment}", "run.work_dir=.")
    model = instantiate(config.model)
    keys = set(config.data.load_properties)
    assert keys == {output.name for output in config.task.outputs}
    assert keys <= {*model.model_outputs}
    assert with_elastic_response(model, ElasticResponse(clamped_key="response"))


@pytest.mark.parametrize("levels", [False, True])
def test_experiment_of_the_hamiltonian_needs_no_network(levels, compose_train):
    """Bonds of the graphs reach the cutoff."""
    name = "experiment=phonon_hamiltonian" + levels * "_levels"
    config = compose_train(name, "run.work_dir=.", *(levels * ["data.calculator.n_levels=3"]))
    model = instantiate(config.model)
    (head,) = model.output_modules
    head.check_model(model)
    assert isinstance(model.representation, NoFeatures)
    assert {output.name for output in config.task.outputs} == set(head.model_outputs)
    assert {*config.data.load_properties} == {*head.model_outputs, *(levels * ["kpoints"])}
    assert head.n_levels == 3 * levels
    (neighbours,) = [each for each in config.data.transforms if "cutoff" in each]
    assert neighbours.cutoff == head.hamiltonian.cutoff


def test_number_of_snapshots_of_an_experiment_holds_for_any_ensemble(compose_train):
    plain = compose_train("+data/ensemble@ensemble=strained").ensemble
    fewer = compose_train("experiment=phonon_elastic").data.ensemble
    assert instantiate(plain).n_snapshots == plain.base.n_snapshots
    assert instantiate(fewer).n_snapshots == 15


def test_no_config_of_ours_hides_behind_one_of_the_host():
    host = Path(find_spec("schnetpack").origin).parent / "configs"
    ours = {file.relative_to(CONFIGS) for file in CONFIGS.rglob("*.yaml")}
    assert not ours & {file.relative_to(host) for file in host.rglob("*.yaml")}


def test_unrelated_application_is_untouched(tmp_path):
    app = Path(__file__).parent / "unrelated_app.py"
    run = subprocess.run(
        [sys.executable, app, "--info", "searchpath"], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "schnetpack" not in run.stdout + run.stderr


def test_groups_are_listed_without_torch(tmp_path):
    """Which takes many times as long to load as they take to list."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = ['spkphonon', 'generate', "
        "'--config-help']; from schnetpack_phonon.cli.commands import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PWD": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "data/ensemble: active, file" in done.stdout


def test_plugins_are_imported_where_a_wheel_has_them():
    """A wheel has ``_hydra.py`` and ``_sweeper.py`` among Hydra's plugins, and there alone."""
    package = Path(schnetpack_phonon.__file__).parent
    for module in package.rglob("*.py"):
        assert "schnetpack_phonon._hydra import" not in module.read_text(), module
        assert "schnetpack_phonon._sweeper import" not in module.read_text(), module
