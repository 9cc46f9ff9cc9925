"""``spkphonon generate``, ``export`` and ``collect``: from a configuration to its database."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schnetpack_phonon.cli.parsers import argument, command, one_line_errors

log = logging.getLogger(__name__)


@command(
    "generate",
    argument("--dry-run", action="store_true", help="describe the ensemble, label none"),
    overrides=True,
)
def generate(options: argparse.Namespace) -> None:
    """Make the database and stop, without training.

    Takes the overrides and options of spktrain:
      NAME=VALUE     changes the configuration
      --cfg job      prints the configuration and stops
      --hydra-help   lists the options of Hydra
      --config-help  lists the configuration groups, as spktrain --help does

    Example:
      spkphonon generate --dry-run experiment=phonon_antiperovskite
      spkphonon generate experiment=phonon_antiperovskite data.ensemble.n_snapshots=10
    """

    def act(data: Any, _: Any) -> None:
        if options.dry_run:
            print(data.preview())
            return
        data.prepare_data()
        log.info("database: %s", Path(data.datapath).resolve())

    with_data(options, act)


@command(
    "export",
    argument("folder", type=Path, metavar="FOLDER", help="to write; the first argument"),
    overrides=True,
)
def export(options: argparse.Namespace) -> None:
    """Write the inputs of the labels that are needed next.

    Takes the overrides and options of spktrain, as spkphonon generate does.

    Example:
      spkphonon export FOLDER experiment=... data/calculator=cp2k data.calculator.version=2023.1
    """
    if "=" in str(options.folder):
        options.parser.error(f"FOLDER comes before the overrides, found {options.folder}")
    folder = options.folder.absolute()  # Hydra changes the working directory

    def act(data: Any, config: Any) -> None:
        from omegaconf import OmegaConf

        from schnetpack_phonon.labels import offline

        code: Any = OmegaConf.to_container(config.data.calculator, resolve=True)
        made = data.generation
        print(offline.export(made.plan, made.recipe.calculator, made.label_store, folder, code))

    with_data(options, act)


def check_complete(config: Any, *sections: str) -> None:
    """Raises ValueError that names all values that are mandatory and missing.

    Args:
        config: of Hydra.
        sections: of it that are looked at, where there are such.
    """
    from omegaconf import OmegaConf

    found = (OmegaConf.missing_keys(config.get(name) or {}) for name in sections)
    if missing := sorted(key for keys in found for key in keys):
        values = " ".join(f"{key}=VALUE" for key in missing)
        raise ValueError(f"no value of {', '.join(missing)}: add {values}")


def with_data(options: argparse.Namespace, act: Callable[[Any, Any], None]) -> None:
    """Calls ``act`` with the data module of a Hydra configuration and with the configuration."""
    # The other commands do without Hydra and torch.
    import hydra
    from hydra._internal.utils import get_args_parser
    from hydra.core.plugins import Plugins
    from hydra_plugins.schnetpack_phonon_searchpath import SchnetpackPhononSearchPath, host_configs
    from omegaconf import DictConfig

    prog, grammar = options.parser.prog, get_args_parser()
    overrides = ["--help" if each == "--config-help" else each for each in options.overrides]
    unknown = [each for each in grammar.parse_known_args(overrides)[1] if each.startswith("-")]
    if unknown:
        options.parser.refuse(unknown, grammar.format_usage())

    place = "pkg://schnetpack/configs"
    if "--help" in overrides:  # the groups alone: Hydra imports a package, and torch with it
        place = str(host_configs())
        Plugins.instance().register(SchnetpackPhononSearchPath)
    else:
        from schnetpack import cli as _  # noqa: F401  registers the resolvers of its configs

        ours = ["hydra/job_logging=terminal"]
        ours += [f"++run.verbosity={options.verbosity}"] if options.verbosity else []
        # Beside those of the user: argparse takes them from one place.
        given = (k for k, each in enumerate(overrides) if "=" in each and each[0] != "-")
        start = next(given, len(overrides))
        overrides[start:start] = ours

    @hydra.main(config_path=place, config_name="train", version_base="1.2")
    def run(config: DictConfig) -> None:
        with one_line_errors(prog):
            check_complete(config, "data")
            act(hydra.utils.instantiate(config.data), config)

    sys.argv = [prog, *overrides]
    run()


@command(
    "collect",
    argument("folder", type=Path, metavar="FOLDER", help="written by spkphonon export"),
    argument("--results", metavar="FILE", help="read this file in each folder with ASE"),
    argument("--give-up", action="store_true", help="store what failed as failed, to be replaced"),
    argument(
        "--label-store",
        type=Path,
        metavar="STORE",
        help="default: that of the export, a .jsonl file in or below the working directory",
    ),
)
def collect(options: argparse.Namespace) -> None:
    """Read the outputs in an exported folder into the label store.

    Example:
      spkphonon collect FOLDER
      spkphonon collect FOLDER --results=vasprun.xml
    """
    from schnetpack_phonon.labels import offline

    folder = options.folder.absolute()
    store = options.label_store or offline.store_of(folder)
    print(f"label store: {store.absolute()}", flush=True)
    found = offline.collect(folder, options.results, options.give_up, store)
    print(found)
    if not found.complete:
        sys.exit(3)
