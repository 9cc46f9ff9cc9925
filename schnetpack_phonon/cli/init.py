"""``spkphonon init``: an experiment for crystals of one's own, as a short commented file."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schnetpack_phonon.cli.parsers import argument, command
from schnetpack_phonon.common.files import replacing

#: Name of a code on the command line -> data/calculator.
CODES = {"xtb": "gfn1_nox"}
CODES |= {code: code for code in ("cp2k", "espresso", "gpaw", "vasp", "sevennet", "ase")}
_CALCULATED = "none"  # answer for force constants or a cluster that there are not


@dataclass
class Answers:
    """What an experiment needs.

    Attributes:
        files: of structures.
        force_constants: files of phonopy, or none: they are calculated.
        code: one of :data:`CODES`.
        values: options of its calculator.
        temperatures: in K.
        cores: of a node of a SLURM cluster that computes the labels; None for this machine.
        name: of the experiment.
    """

    files: list[str]
    force_constants: str | None
    code: str
    values: dict[str, Any]
    temperatures: list[float]
    cores: int | None
    name: str


@command(
    "init",
    argument("files", nargs="*", metavar="STRUCTURE", help="files: CIF, POSCAR, ASE's, phonopy's"),
    argument(
        "--force-constants",
        metavar="FILE|none",
        help="of phonopy, {name} stands for the crystal; none: calculated (default)",
    ),
    argument("--code", choices=list(CODES), help="of the labels; ase: any calculator of ASE"),
    argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the calculator, as ecutwfc=60; may be repeated",
    ),
    argument("-t", "--temperatures", nargs="+", type=float, metavar="T", help="in K (300)"),
    argument("--cluster", metavar="CORES|none", help="labels by SLURM jobs, cores of a node"),
    argument("--name", help="of the experiment (the names of the crystals)"),
)
def init(options: argparse.Namespace) -> None:
    r"""Write an experiment for your own crystals: configs/experiment/NAME.yaml.

    Asks for what is not given; where the standard input is no terminal, only options count. Then
    checks atoms, symmetry, supercell, force constants, elements and pseudopotentials, and that the
    program of the labels is there, and says the commands that follow. Calculates nothing.

    Pseudopotentials of Quantum ESPRESSO are found in pseudo_dir by their names.

    Example:
      spkphonon init MgO.vasp CaO.vasp --code xtb -t 300 600
      spkphonon init POSCAR --force-constants phonopy_params.yaml --code ase \
          --set factory._target_=ase.calculators.emt.EMT
      spkphonon init POSCAR --code espresso --set pseudo_dir=pseudo --set ecutwfc=60 \
          --set ecutrho=480
    """
    answers = _answers(options)
    crystals = _crystals(answers)
    answers.name = answers.name or "_".join(re.sub(r"\W", "_", each.name) for each in crystals)
    path = _new_file(answers.name)
    _add_pseudopotentials(answers, crystals)
    text = experiment(answers, [each.name for each in crystals])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(text)
    print(f"\n{path}:\n\n{text}")
    for each in crystals:
        what = f"{each.name}: {len(each.unitcell)} atoms, space group {each.space_group}"
        print(what, flush=True)
    try:
        print(_checked(answers.name))
    except Exception as error:
        sys.exit(
            f"{options.parser.prog}: {path} is written; edit it, or remove it and start again, "
            f"since it is not ready: {error}"
        )
    print(
        "\nNext:\n"
        f"  spkphonon generate --dry-run experiment={answers.name}\n"
        "      force constants, and pictures of the snapshots before their labels\n"
        f"  spktrain experiment={answers.name} run.id={answers.name}\n"
        "      labels, training, test; goes on where it was interrupted\n"
        f"  spkphonon report runs/{answers.name}\n"
        "      errors and bonds, and where the figures are"
    )


def _answers(options: argparse.Namespace) -> Answers:
    """Options, and answers to questions about those that are not given."""
    import yaml

    asks = sys.stdin is not None and sys.stdin.isatty()

    def ask(given: Any, question: str, default: str = "") -> str:
        if given is not None or not asks:
            return default if given is None else str(given)
        while not (answer := input(f"{question}{f' [{default}]' if default else ''}: ") or default):
            pass
        return answer.strip()

    files: list[str] = options.files or ask(None, "structure files, separated by spaces").split()
    given = options.force_constants
    constants = ask(given, "force constants: a file of phonopy, or none", _CALCULATED)
    code = ask(options.code, f"code for labels: {', '.join(CODES)}", "xtb" if asks else "")
    if not files or code not in CODES:
        options.parser.error(
            f"got {' '.join(files) or 'no file'} and {code or 'no code'}; expected STRUCTURE files "
            f"and --code, one of {', '.join(CODES)}"
        )
    values = dict(each.partition("=")[::2] for each in options.set)
    needed = [key for key in _mandatory(code) if key not in values and key != "pseudopotentials"]
    if needed and not asks:
        options.parser.error(f"{code} needs {' '.join(f'--set {key}=VALUE' for key in needed)}")
    values |= {key: ask(None, f"{key} of the calculator") for key in needed}
    given = options.temperatures and " ".join(f"{each:g}" for each in options.temperatures)
    temperatures = ask(given, "temperatures in K", "300").replace(",", " ").split()
    cores = ask(options.cluster, "SLURM cluster: cores of a node, or none", _CALCULATED)
    if cores != _CALCULATED and not cores.isdigit():
        options.parser.error(f"--cluster is {cores}; expected the cores of a node, or none")
    return Answers(
        files,
        None if constants == _CALCULATED else constants,
        code,
        {key: yaml.safe_load(value) for key, value in values.items()},
        [float(each) for each in temperatures],
        None if cores == _CALCULATED else int(cores),
        options.name or "",
    )


def _mandatory(code: str) -> list[str]:
    """Options of its calculator that have no default."""
    from hydra_plugins.schnetpack_phonon_searchpath import config_folder
    from omegaconf import OmegaConf

    file = Path(str(config_folder()), "data", "calculator", f"{CODES[code]}.yaml")
    alone = re.sub(r"\$\{.*\}", "", file.read_text())  # without the configuration around it
    return sorted(OmegaConf.missing_keys(OmegaConf.create(alone)))


def _crystals(answers: Answers) -> list[Any]:
    from schnetpack_phonon.structures.several_files import StructureFiles

    smallest = 40 if answers.code == "xtb" else 2
    return StructureFiles(answers.files, _supercell(answers), min_atoms=smallest).crystals


def _supercell(answers: Answers) -> Any:
    """That of the force constants, if their file tells it."""
    path = Path(answers.force_constants or "")
    if answers.force_constants is None or "{name}" in str(path):
        return "auto"
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(
            f"--force-constants is {path}; expected a yaml file of phonopy, such as "
            "phonopy_params.yaml, which tells the supercell"
        )
    from schnetpack_phonon.structures.formats.phonopy_yaml import phonopy_unitcell, reading

    with reading(path):
        return phonopy_unitcell(path).info.get("supercell", "auto")


def _new_file(name: str) -> Path:
    """Raises ValueError for a name that is no name, or is taken."""
    from importlib.util import find_spec

    from hydra_plugins.schnetpack_phonon_searchpath import config_folder

    if not re.fullmatch(r"[A-Za-z][\w-]*", name):
        raise ValueError(f"--name is {name!r}; expected letters, digits, _ and -")
    path = Path("configs", "experiment", f"{name}.yaml")
    host = Path(str(getattr(find_spec("schnetpack"), "origin", ""))).parent / "configs"
    for folder in (Path(str(config_folder())), host, Path("configs")):
        if (folder / "experiment" / path.name).is_file():
            raise ValueError(f"experiment={name} exists in {folder}: choose another --name")
    return path


def _add_pseudopotentials(answers: Answers, crystals: list[Any]) -> None:
    """Of each element the file in ``pseudo_dir`` that begins with its symbol."""
    if answers.code != "espresso" or "pseudopotentials" in answers.values:
        return
    folder = Path(str(answers.values["pseudo_dir"]))
    found = {}
    for symbol in dict.fromkeys(s for c in crystals for s in c.unitcell.get_chemical_symbols()):
        pattern = re.compile(rf"{symbol}([._-].*)?\.upf", re.IGNORECASE)
        files = [file.name for file in sorted(folder.glob("*")) if pattern.fullmatch(file.name)]
        if len(files) != 1:
            raise ValueError(
                f"{len(files)} pseudopotentials of {symbol} in {folder.absolute()} "
                f"({', '.join(files) or 'no ' + symbol + '.*.upf'}); expected one: name it with "
                f"--set 'pseudopotentials={{{symbol}: FILE, ...}}'"
            )
        found[symbol] = files[0]
    answers.values = {"pseudopotentials": found, **answers.values}


def experiment(answers: Answers, names: list[str]) -> str:
    """The file, for crystals of these names."""
    own = answers.force_constants is not None
    overrides = {
        "data/structure": "files",
        "data/calculator": CODES[answers.code],
        **({"data/phonons": "phonopy"} if own else {}),
        **({"data/executor": "slurm"} if answers.cores else {}),
        # EMT, potentials of machine learning and the like know no electrons.
        **({"heads": "forces"} if answers.code in ("ase", "sevennet") else {}),
    }
    source = f"force constants of {answers.force_constants}" if own else "finite displacements"
    lines = [
        "# @package _global_\n",
        f"# {', '.join(names)}: thermal snapshots ({source}), labels of {answers.code}, a model.",
        f"# All settings: spktrain experiment={answers.name} --cfg job\n",
        "defaults:",
        "  - phonon_antiperovskite",
        *(f"  - override /{group}: {choice}" for group, choice in overrides.items()),
        "  - _self_\n",
        f"run:\n  experiment: {answers.name}\n",
        "data:",
        "  structure:",
        f"    paths: {_flow(answers.files)}",
        f"    supercell: {_flow(_supercell(answers))}  # auto, [2, 2, 2] or a 3x3 matrix",
    ]
    lines += [
        "    relax: false  # the crystal of the force constants\n"
        f"  phonons:\n    path: {_flow(answers.force_constants)}"
        if own
        else "    relax: true  # cell and positions, in the symmetry of the file",
        "  ensemble:",
        f"    temperatures: {_flow(answers.temperatures)}  # K",
        "    n_snapshots: 50  # of each crystal and temperature",
    ]
    if answers.values:
        lines.append("  calculator:")
        for key, value in answers.values.items():
            *above, last = key.split(".")
            lines += [f"    {each}:" for each in above]
            lines.append(f"    {'  ' * len(above)}{last}: {_flow(value)}")
    if answers.cores:
        lines.append(f"  executor:\n    cores_per_node: {answers.cores}")
        lines.append("    # and partition, account, walltime, worker_init as they need be")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    import yaml

    if isinstance(value, list):
        value = [int(x) if isinstance(x, float) and x.is_integer() else x for x in value]
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _checked(name: str) -> str:
    """What the experiment will do, after the checks that come before each calculation."""
    import os

    from hydra import compose, initialize_config_module
    from hydra.utils import instantiate
    from schnetpack import cli as _  # noqa: F401  registers the resolvers that its configs use

    from schnetpack_phonon.data.preparation import Recipe
    from schnetpack_phonon.ensembles.base import planned_parents

    os.environ["PWD"] = os.getcwd()  # SchNetPack's search path
    with initialize_config_module("schnetpack.configs", version_base="1.2"):
        config = compose("train", [f"experiment={name}", "run.work_dir=."]).data
    parts = ("structure", "phonons", "ensemble", "calculator")
    recipe = Recipe(**{part: instantiate(config[part]) for part in parts})
    recipe.check()
    lacking = [key for key in config.load_properties if key not in recipe.properties]
    if lacking:
        raise ValueError(f"labels will lack {', '.join(lacking)}, which the model is trained on")
    n_labels = len(planned_parents(recipe.ensemble, recipe.structure.crystals))
    return f"{recipe.calculator.code_version}: {n_labels} snapshots to be labelled"
