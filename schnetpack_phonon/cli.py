"""``spkphonon``: our own commands, on the same configs as ``spktrain``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from schnetpack_phonon.report import ReportError, read_report

log = logging.getLogger(__name__)

USAGE = """\
spkphonon generate experiment=phonon_antiperovskite   make the database and stop
spkphonon generate --dry-run experiment=...           look at the ensemble, label none of it
spkphonon card data/NAME.db ...                       write a page about a database
spkphonon extxyz data/NAME.db NAME.extxyz             its structures and labels for other codes
spkphonon report runs/NAME ...                        print what finished runs gave
spkphonon labels list data/labels.jsonl               what a label store holds (and --help)

'generate' takes what spktrain takes: spkphonon generate experiment=... --help
"""


def main() -> None:
    """Entry point of ``spkphonon``."""
    command, *arguments = sys.argv[1:] or ["--help"]
    if command == "generate":
        dry_run = "--dry-run" in arguments
        arguments = [a for a in arguments if a != "--dry-run"]
        sys.argv = [f"{sys.argv[0]} generate", *arguments]
        _generate(dry_run)
    elif command == "card" and arguments:
        _card(arguments)
    elif command == "extxyz" and len(arguments) == 2:
        _extxyz(*arguments)
    elif command == "report" and arguments:
        _report(arguments)
    elif command == "labels":
        _labels(arguments)
    else:
        print(USAGE)
        sys.exit(0 if command in ("-h", "--help") else 2)


def _generate(dry_run: bool) -> None:
    # Hydra and torch are imported here: `report` has no need of them.
    import hydra
    from hydra.errors import InstantiationException
    from omegaconf import DictConfig
    from schnetpack import cli as _  # noqa: F401  registers the resolvers that its configs use

    from schnetpack_phonon.calculators import UnavailableError
    from schnetpack_phonon.database import DatabaseError
    from schnetpack_phonon.label_store import LabellingError

    errors = (
        DatabaseError,
        LabellingError,
        UnavailableError,
        InstantiationException,
        ValueError,
    )

    @hydra.main(config_path="pkg://schnetpack/configs", config_name="train", version_base="1.2")
    def generate(config: DictConfig) -> None:
        try:
            data = hydra.utils.instantiate(config.data)
            if dry_run:
                print(data.preview())
                return
            data.prepare_data()
        except KeyboardInterrupt:
            sys.exit(130)
        except errors as error:
            sys.exit(f"spkphonon generate: {error}")
        log.info("database: %s", Path(data.datapath).resolve())

    generate()


def _card(paths: list[str]) -> None:
    from schnetpack_phonon.card import write_card
    from schnetpack_phonon.database import DatabaseError

    try:
        for path in paths:
            print(write_card(path))
    except DatabaseError as error:
        sys.exit(f"spkphonon card: {error}")


def _extxyz(path: str, target: str) -> None:
    from schnetpack_phonon.database import DatabaseError, write_extxyz

    try:
        write_extxyz(path, target)
    except (DatabaseError, OSError) as error:
        sys.exit(f"spkphonon extxyz: {error}")


def _report(folders: list[str]) -> None:
    try:
        for folder in folders:
            print(read_report(Path(folder)))
    except ReportError as error:
        sys.exit(f"spkphonon report: {error}")


def _labels(arguments: list[str]) -> None:
    from schnetpack_phonon.database import DatabaseError
    from schnetpack_phonon.label_export import export
    from schnetpack_phonon.label_maintenance import merge, prune, summary
    from schnetpack_phonon.label_store import LabellingError

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
