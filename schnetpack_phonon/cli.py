"""``spkphonon``: our own commands, on the same configs as ``spktrain``."""

from __future__ import annotations

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
