"""``spkphonon``: its entry point, and the commands for what is finished."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from schnetpack_phonon import __version__
from schnetpack_phonon.cli.attribute import attribute
from schnetpack_phonon.cli.bands import bands
from schnetpack_phonon.cli.generate import collect, export, generate
from schnetpack_phonon.cli.import_labels import import_labels
from schnetpack_phonon.cli.init import init
from schnetpack_phonon.cli.parsers import (
    TRUST,
    Parser,
    add_group,
    argument,
    command,
    one_line_errors,
    show_messages,
    trust_of,
)
from schnetpack_phonon.cli.predict import predict
from schnetpack_phonon.common.files import check_folder


def main() -> None:
    """Make phonon-informed databases, and evaluate the models that spktrain trains on them.

    Example:
      spkphonon init POSCAR                                 an experiment for your crystals
      spkphonon generate experiment=phonon_antiperovskite   make the database and stop
      spkphonon export FOLDER experiment=...                write inputs for a cluster
      spkphonon collect FOLDER                              read their outputs
      spkphonon report runs/NAME                            print the table of a finished run
      spkphonon predict runs/NAME STRUCTURES -o OUT.csv     properties of other structures
      spkphonon COMMAND --help                              options of a command, with examples
    """
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # set by the shell that asks for completions
        import argcomplete

        argcomplete.autocomplete(parser)
    options, unknown = parser.parse_known_args(sys.argv[1:] or ["--help"])
    if options.overrides is not None:
        options.overrides = unknown
    elif unknown:
        options.parser.refuse(unknown)
    if options.overrides is None:  # else Hydra shows them
        show_messages(options.verbosity)
    with one_line_errors(options.parser.prog):
        options.run(options)
        _flush()


def _flush() -> None:
    """Raises OSError if what was printed could not be written, as on a full disk."""
    try:
        if sys.stdout is not None:  # closed by the shell
            sys.stdout.flush()
    except OSError:
        # Python would try again at the end, and exit with a code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _parser() -> Parser:
    parser = Parser(prog="spkphonon", doc=main.__doc__ or "Example:")
    parser.add_argument("--version", action="version", version=f"spkphonon {__version__}")
    groups = {"": add_group(parser)}
    data = (init, generate, export, collect, import_labels, _card, _extxyz)
    stores = (_labels, _list, _merge, _export, _prune)
    for each in (*data, *stores, predict, attribute, bands, _report, _thermal, _phonons):
        each.add_to(groups)
    return parser


@command("card", argument("paths", nargs="+", metavar="DATABASE"))
def _card(options: argparse.Namespace) -> None:
    """Describe a database: settings, phonons, labels, digest of the content.

    Prints the page and writes it beside the database as NAME_card.md.

    Example:
      spkphonon card data/NAME.db
    """
    from schnetpack_phonon.data.card import write_card

    for path in options.paths:
        print(write_card(path))


@command("extxyz", argument("path", metavar="DATABASE"), argument("target", metavar="OUT.extxyz"))
def _extxyz(options: argparse.Namespace) -> None:
    """Write structures and labels of a database as extended XYZ.

    Example:
      spkphonon extxyz data/NAME.db NAME.extxyz
    """
    from schnetpack_phonon.data.export import write_extxyz

    write_extxyz(options.path, options.target)


@command("labels")
def _labels(options: argparse.Namespace) -> None:
    """List, merge, export or prune label stores.

    Example:
      spkphonon labels list data/labels.jsonl
    """


@command("labels list", argument("store", metavar="STORE"))
def _list(options: argparse.Namespace) -> None:
    """Count finished and failed labels, with the reasons of failures.

    Example:
      spkphonon labels list data/labels.jsonl
    """
    from schnetpack_phonon.labels.maintenance import summary

    print(summary(options.store))


@command(
    "labels merge", argument("into", metavar="INTO"), argument("sources", metavar="FROM", nargs="+")
)
def _merge(options: argparse.Namespace) -> None:
    """Add the records of other stores to one.

    Example:
      spkphonon labels merge data/labels.jsonl OTHER.jsonl
    """
    from schnetpack_phonon.labels.maintenance import merge

    print(merge(options.into, options.sources))


@command(
    "labels export",
    argument("store", metavar="STORE"),
    argument("target", metavar="OUT.extxyz|.db|.csv"),
    argument("--failed", action="store_true", help="what failed, with the reasons"),
)
def _export(options: argparse.Namespace) -> None:
    """Write structures and labels of a store for other programs.

    Example:
      spkphonon labels export data/labels.jsonl OUT.extxyz
    """
    from schnetpack_phonon.data.export import export

    print(export(options.store, options.target, options.failed))


@command(
    "labels prune",
    argument("store", metavar="STORE"),
    argument("--code", help="only those of this code, as 'list' prints it"),
    argument("--finished", action="store_true", help="its finished labels too"),
)
def _prune(options: argparse.Namespace) -> None:
    """Drop failed records, so that they are computed again.

    Example:
      spkphonon labels prune data/labels.jsonl --code='CP2K 2023.1'
    """
    from schnetpack_phonon.labels.maintenance import prune

    if options.finished and options.code is None:
        options.parser.error("--finished drops finished labels: say --code of which code")
    print(prune(options.store, options.code, options.finished))


@command(
    "report",
    argument("runs", nargs="+", type=Path, metavar="RUNS", help="runs, or folders of runs"),
    argument(
        "-o", "--out", type=Path, default=Path("report"), help="folder of the page (%(default)s)"
    ),
    argument("--test", nargs="+", type=Path, default=[], metavar="FILE", help="more test sets"),
    argument("--reference", default="phonon", help="ensemble to compare others with (%(default)s)"),
    *TRUST,
)
def _report(options: argparse.Namespace) -> None:
    """Print the table of one run, or compare several on one page.

    Several runs: each model is tested on the test sets of all and on those of --test. Writes a page
    (index.html), its tables and its figures.

    Models are read from their weights (best_model.npz), which run no code; classes are made of
    SchNetPack, torch.nn and this package only. Runs without that file (of SchNetPack alone, of
    version 0.1) have a pickle, which can run any program: they need --trust.

    Example:
      spkphonon report runs/NAME
      spkphonon report runs/A runs/B --test md.extxyz
    """
    from schnetpack_phonon.evaluation.run_report import PAGE, read_report

    if len(options.runs) == 1 and (options.runs[0] / PAGE).is_file() and not options.test:
        print(read_report(options.runs[0]))
        return
    check_folder(options.out, "--out")
    from schnetpack_phonon.evaluation.comparison.page import compare  # loads torch

    print(compare(options.runs, options.out, options.test, options.reference, trust_of(options)))


@command(
    "thermal",
    argument("runs", nargs="+", type=Path, metavar="RUNS", help="one, or several seeds"),
    argument(
        "-t",
        "--temperatures",
        nargs="+",
        type=float,
        default=[0, 100, 200, 300, 450, 600],
        help="in K",
    ),
    argument("-n", "--snapshots", type=int, default=1000, help="of each average (%(default)s)"),
    argument("--seed", type=int, default=1, help="of the snapshots (%(default)s)"),
    argument(
        "--supercell",
        nargs="+",
        type=int,
        default=[],
        metavar="N",
        help="gap near 300 K against the size, in N x N x N unit cells, of a learned Hamiltonian",
    ),
    argument(
        "-o", "--out", type=Path, default=Path("thermal"), help="folder of the page (%(default)s)"
    ),
    *TRUST,
)
def _thermal(options: argparse.Namespace) -> None:
    """Average predictions over thermal snapshots at several temperatures.

    Writes a page (index.html): quantum and classical averages of the gap, the stress and all other
    outputs of the model against temperature, and the gap along single modes. Runs without
    best_model.npz need --trust, as for spkphonon report.

    Example:
      spkphonon thermal runs/NAME -t 0 150 300
      spkphonon thermal runs/NAME -t 300 --supercell 2 3 4
    """
    if options.snapshots < 2 or min(options.temperatures) < 0:
        options.parser.error("expected at least 2 snapshots and temperatures of 0 K and above")
    if min(options.supercell, default=1) < 1:
        options.parser.error("expected supercells of at least 1 unit cell a side")
    check_folder(options.out, "--out")
    from schnetpack_phonon.evaluation.thermal.page import thermal_report

    out, temperatures, n_snapshots = options.out, options.temperatures, options.snapshots
    trust = trust_of(options)
    own = options.runs, out, temperatures, n_snapshots, options.seed, trust, options.supercell
    print(thermal_report(*own))


@command(
    "phonons",
    argument("model", type=Path, metavar="RUN", help="run folder of a model with forces"),
    argument(
        "-o", "--out", type=Path, default=Path("phonons"), help="folder of the page (%(default)s)"
    ),
    *TRUST,
)
def _phonons(options: argparse.Namespace) -> None:
    """Compare the phonons of a trained potential with the force constants of its data.

    Writes a page (index.html): bands and densities of states of each crystal, and a table of the
    frequencies at the wave vectors of the supercell. Runs without best_model.npz need --trust, as
    for spkphonon report.

    Example:
      spkphonon phonons runs/NAME
    """
    check_folder(options.out, "--out")
    from schnetpack_phonon.evaluation.phonons.page import phonon_report

    print(phonon_report(options.model, options.out, trust_of(options)))
