"""``spkphonon bands``: bands, density of states and hoppings of a trained Hamiltonian."""

from __future__ import annotations

import argparse
from pathlib import Path

from schnetpack_phonon.cli.parsers import TRUST, argument, command, trust_of
from schnetpack_phonon.common.files import check_folder


@command(
    "bands",
    argument("model", type=Path, metavar="RUN", help="run folder or best_model"),
    argument(
        "structure",
        type=Path,
        metavar="STRUCTURE",
        help="ASE database (.db) or any structure file that ASE reads",
    ),
    argument("--frame", type=int, help="which structure of several; 0 is the first"),
    argument("--format", help="of the file, as ASE names it; by default told from the file"),
    argument("--path", help="such as GXMGR; by default the standard one of the lattice"),
    argument(
        "--window",
        nargs=2,
        type=float,
        default=[-5, 5],
        metavar=("LOW", "HIGH"),
        help="energies in the figure from the valence band maximum, in eV (%(default)s)",
    ),
    argument(
        "-o", "--out", type=Path, default=Path("bands"), help="folder of the page (%(default)s)"
    ),
    *TRUST,
)
def bands(options: argparse.Namespace) -> None:
    """Draw bands, density of states and hoppings of a learned Hamiltonian.

    Writes a page (index.html), its figures and its tables: bands along the path beside the density
    of states, with the band edges of the label if the structure has one, and hoppings against
    distance for each pair of orbitals. The model must have been trained with HamiltonianEdges.
    Runs without best_model.npz need --trust, as for spkphonon report.

    Example:
      spkphonon bands runs/NAME POSCAR
      spkphonon bands runs/NAME data/NAME.db --frame 0 -o bands_of_first
    """
    check_folder(options.out, "--out")
    from schnetpack_phonon.evaluation.bands.page import band_report

    low, high = options.window
    chosen = options.frame, options.format, options.path, (low, high)
    print(band_report(options.model, options.structure, options.out, *chosen, trust_of(options)))
