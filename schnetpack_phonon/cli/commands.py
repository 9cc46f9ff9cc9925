"""``spkphonon``: our own commands, on the same configs as ``spktrain``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schnetpack_phonon.evaluation.run_report import PAGE, read_report

log = logging.getLogger(__name__)


USAGE = """\
spkphonon generate experiment=phonon_antiperovskite   make the database and stop
spkphonon generate --dry-run experiment=...           look at the ensemble, label none of it
spkphonon export FOLDER experiment=...                write inputs of the labels that come next
spkphonon collect FOLDER                              read what came of them
spkphonon card data/NAME.db ...                       write a page about a database
spkphonon extxyz data/NAME.db NAME.extxyz             its structures and labels for other codes
spkphonon attribute DATA --model runs/NAME/best_model which bonds carry a prediction (and --help)
spkphonon report runs/NAME                            print what a finished run gave
spkphonon report RUNS ...                             compare runs on one page (and --help)
spkphonon thermal runs/NAME ...                       properties at temperature (and --help)
spkphonon labels list data/labels.jsonl               what a label store holds (and --help)

'generate' and 'export' take what spktrain takes: spkphonon generate experiment=... --help
"""


_REPORT = """\
Prints the table of one run; tests several on each other's data and on more test sets, and writes a
page (index.html), its tables and its figures.
"""


_THERMAL = """\
Averages what a trained model gives over thermal snapshots and writes a page: quantum and classical,
gap, stress and all else that the model gives against temperature, and the gap along single modes.
"""


def main() -> None:
    """Entry point of ``spkphonon``."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command == "generate":
        dry_run = "--dry-run" in arguments
        _with_data(command, [a for a in arguments if a != "--dry-run"], _generate(dry_run))
    elif command == "export" and arguments and "=" not in arguments[0]:
        folder, *overrides = arguments
        _with_data(command, overrides, _export(Path(folder).absolute()))
    elif command == "collect":
        _collect(arguments)
    elif command == "card" and arguments:
        _card(arguments)
    elif command == "extxyz" and len(arguments) == 2:
        _extxyz(*arguments)
    elif command == "attribute":
        _attribute(arguments)
    elif command == "report" and arguments:
        _report(arguments)
    elif command == "thermal" and arguments:
        _thermal(arguments)
    elif command == "labels":
        _labels(arguments)
    else:
        print(USAGE)
        sys.exit(0 if command in ("-h", "--help") else 2)


def _generate(dry_run: bool) -> Callable[[Any, Any], None]:
    def act(data: Any, _: Any) -> None:
        if dry_run:
            print(data.preview())
            return
        data.prepare_data()
        log.info("database: %s", Path(data.datapath).resolve())

    return act


def _export(folder: Path) -> Callable[[Any, Any], None]:
    from schnetpack_phonon.labels.offline import export

    def act(data: Any, config: Any) -> None:
        from omegaconf import OmegaConf

        code: Any = OmegaConf.to_container(config.data.calculator, resolve=True)
        made = data.generation
        print(export(made.plan, made.recipe.calculator, made.label_store, folder, code))

    return act


def _with_data(command: str, overrides: list[str], act: Callable[[Any, Any], None]) -> None:
    """Calls ``act`` with the data module of a Hydra configuration and with that."""
    # Hydra and torch are imported here: the other commands have no need of them.
    import hydra
    from hydra.errors import InstantiationException
    from omegaconf import DictConfig
    from schnetpack import cli as _  # noqa: F401  registers the resolvers that its configs use

    from schnetpack_phonon.common.errors import LabellingError, ManifestError, UnavailableError
    from schnetpack_phonon.data.database import DatabaseError

    errors = (
        DatabaseError,
        LabellingError,
        ManifestError,
        UnavailableError,
        InstantiationException,
        OSError,
        ValueError,
    )

    @hydra.main(config_path="pkg://schnetpack/configs", config_name="train", version_base="1.2")
    def run(config: DictConfig) -> None:
        try:
            act(hydra.utils.instantiate(config.data), config)
        except KeyboardInterrupt:
            sys.exit(130)
        except errors as error:
            sys.exit(f"spkphonon {command}: {error}")

    sys.argv = [f"{sys.argv[0]} {command}", *overrides]
    run()


def _collect(arguments: list[str]) -> None:
    """Exits with 0 if there are labels of all structures, 3 if some are still to come."""
    from schnetpack_phonon.common.errors import LabellingError, ManifestError
    from schnetpack_phonon.labels.offline import collect

    parser = argparse.ArgumentParser("spkphonon collect")
    parser.add_argument("folder", type=Path, help="that spkphonon export wrote")
    parser.add_argument("--results", metavar="FILE", help="read this file in each folder with ASE")
    parser.add_argument(
        "--give-up", action="store_true", help="store what failed as failed, to be replaced"
    )
    parser.add_argument("--label-store", type=Path, help="that of the export by default")
    options = parser.parse_args(arguments)
    try:
        found = collect(
            options.folder.absolute(), options.results, options.give_up, options.label_store
        )
    except (LabellingError, ManifestError, OSError) as error:
        sys.exit(f"spkphonon collect: {error}")
    print(found)
    sys.exit(0 if found.complete else 3)


def _card(paths: list[str]) -> None:
    from schnetpack_phonon.data.card import write_card
    from schnetpack_phonon.data.database import DatabaseError

    try:
        for path in paths:
            print(write_card(path))
    except DatabaseError as error:
        sys.exit(f"spkphonon card: {error}")


def _extxyz(path: str, target: str) -> None:
    from schnetpack_phonon.data.database import DatabaseError
    from schnetpack_phonon.data.export import write_extxyz

    try:
        write_extxyz(path, target)
    except (DatabaseError, OSError) as error:
        sys.exit(f"spkphonon extxyz: {error}")


def _show_messages() -> None:
    """Messages of ours, as Hydra shows them; before imports that set up logging in their way."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("schnetpack_phonon").setLevel(logging.INFO)


def _attribute(arguments: list[str]) -> None:
    _show_messages()
    from schnetpack_phonon.cli.attribute import run

    sys.exit(run(arguments))


def _report(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("spkphonon report", description=_REPORT)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUNS", help="runs, or folders of runs"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("report"), help="folder of the page")
    parser.add_argument(
        "--test", nargs="+", type=Path, default=[], metavar="FILE", help="more test sets"
    )
    parser.add_argument("--reference", default="phonon", help="ensemble to compare others with")
    options = parser.parse_args(arguments)
    if len(options.runs) == 1 and (options.runs[0] / PAGE).is_file() and not options.test:
        print(read_report(options.runs[0]))
        return
    _show_messages()
    # Models are loaded: only now torch is needed.
    from schnetpack_phonon.common.errors import ComparisonError, HeldOutError, RunError
    from schnetpack_phonon.evaluation.comparison.page import compare

    try:
        print(compare(options.runs, options.out, options.test, options.reference))
    except (RunError, ComparisonError, HeldOutError, OSError) as error:
        sys.exit(f"spkphonon report: {error}")


def _thermal(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser("spkphonon thermal", description=_THERMAL)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="one, or several seeds")
    parser.add_argument(
        "-t", "--temperatures", nargs="+", type=float, default=[0, 100, 200, 300, 450, 600]
    )
    parser.add_argument("-n", "--snapshots", type=int, default=1000, help="of each average")
    parser.add_argument("--seed", type=int, default=1, help="of the snapshots")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("thermal"), help="folder of the page"
    )
    options = parser.parse_args(arguments)
    if options.snapshots < 2 or min(options.temperatures) < 0:
        parser.error("expected at least 2 snapshots and temperatures of 0 K and above")
    _show_messages()
    from schnetpack_phonon.common.errors import RunError
    from schnetpack_phonon.evaluation.thermal.page import thermal_report

    try:
        print(
            thermal_report(
                options.runs, options.out, options.temperatures, options.snapshots, options.seed
            )
        )
    except (RunError, OSError, ValueError) as error:
        sys.exit(f"spkphonon thermal: {error}")


def _labels(arguments: list[str]) -> None:
    from schnetpack_phonon.common.errors import LabellingError
    from schnetpack_phonon.data.database import DatabaseError
    from schnetpack_phonon.data.export import export
    from schnetpack_phonon.labels.maintenance import merge, prune, summary

    parser = argparse.ArgumentParser("spkphonon labels", description="Looks after label stores.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="what a store holds, and what failed and why")
    listing.add_argument("store", metavar="STORE")
    listing.set_defaults(run=lambda a: summary(a.store))

    merging = commands.add_parser("merge", help="add the records of other stores to one")
    merging.add_argument("into", metavar="INTO")
    merging.add_argument("sources", metavar="FROM", nargs="+")
    merging.set_defaults(run=lambda a: merge(a.into, a.sources))

    exporting = commands.add_parser("export", help="write structures and labels for other programs")
    exporting.add_argument("store", metavar="STORE")
    exporting.add_argument("target", metavar="OUT.extxyz|.db|.csv")
    exporting.add_argument("--failed", action="store_true", help="those that failed, with reasons")
    exporting.set_defaults(run=lambda a: export(a.store, a.target, a.failed))

    pruning = commands.add_parser("prune", help="drop failed records, so that they are tried again")
    pruning.add_argument("store", metavar="STORE")
    pruning.add_argument("--code", help="only those of this code, as 'list' prints it")
    pruning.add_argument("--finished", action="store_true", help="its finished labels too")
    pruning.set_defaults(run=lambda a: prune(a.store, a.code, a.finished))

    chosen = parser.parse_args(arguments)
    if getattr(chosen, "finished", False) and chosen.code is None:
        pruning.error("--finished drops labels that were paid for: say --code of which code")
    try:
        print(chosen.run(chosen))
    except (DatabaseError, LabellingError, OSError) as error:
        sys.exit(f"spkphonon labels: {error}")
