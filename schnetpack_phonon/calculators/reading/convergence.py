"""Whether a density converged, by what the output of a code says.

Each check raises :class:`.NotConverged` if the density did not converge, which another mixing may
cure, and :class:`.OutOfTime` if the run was ended before, which more time may cure.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from ase.calculators.calculator import CalculationFailed, Calculator, FileIOCalculator
from ase.calculators.genericfileio import GenericFileIOCalculator
from ase.io.formats import UnknownFileTypeError, filetype

from schnetpack_phonon.calculators.output import NotConverged, OutOfTime, text_of, xml_root

log = logging.getLogger(__name__)
_END_OF_STEP = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"  # of OUTCAR
_ROUNDING = 1e-8  # eV, of energies and of EDIFF in vasprun.xml


def check_vasp(root: ElementTree.Element, outcar: str, step: int = -1) -> None:
    """Checks an ionic step in vasprun.xml, by default the last.

    VASP ends the electronic steps when energy and band energy change by less than EDIFF, after
    NELM steps, or at a hard stop. Only OUTCAR names the reason, but that of VASP 5 says "EDIFF is
    reached" after NELM steps, too, so the energies are checked as well.

    Args:
        root: of vasprun.xml.
        outcar: text of OUTCAR up to the end of this step; empty if there is none.
        step: number of the ionic step, from 0.
    """
    steps = root.findall("calculation")
    energies = steps[step].findall("scstep/energy/i[@name='e_fr_energy']") if steps else []
    limits = [root.findtext(f"parameters//i[@name='{tag}']") for tag in ("NELM", "EDIFF")]
    if not energies or None in limits:
        raise CalculationFailed(
            "VASP's output has no electronic steps, NELM or EDIFF, which tell whether the density "
            "converged"
        )
    changes = np.diff([float(energy.text or "nan") for energy in energies])
    nelm, ediff = (float(limit or "nan") for limit in limits)
    _check_vasp(len(energies), changes[-1] if changes.size else np.inf, nelm, ediff, outcar)


def _check_outcar(outcar: str, step: int = -1) -> None:
    """Checks an ionic step in OUTCAR, from 0; by default the last."""
    settings, parts = outcar, outcar.split(_END_OF_STEP)
    outcar = ([one + after[:300] for one, after in pairwise(parts)] or parts)[step]
    patterns = {
        "electronic steps": r" Iteration +\d+\( *(\d+)\)",
        "energy changes": r"total energy-change \(2\. order\) *: *(\S+?)[ (]",
        "NELM": r"\bNELM *= *(\d+)",
        "EDIFF": r"\bEDIFF *= *(\S+)",
    }
    if "ML TOTEN" in outcar.rpartition("Iteration")[2]:
        raise CalculationFailed("the last forces in OUTCAR are of a machine-learned force field")
    found = {
        what: re.findall(pattern, settings if what in ("NELM", "EDIFF") else outcar)
        for what, pattern in patterns.items()
    }
    if not all(found.values()):
        missing = ", no ".join(what for what, values in found.items() if not values)
        raise CalculationFailed(f"OUTCAR has no {missing}: did the density converge?")
    n_steps, change, nelm, ediff = (float(values[-1]) for values in found.values())
    _check_vasp(int(n_steps), change, nelm, ediff, outcar)


def _check_vasp(n_steps: int, change: float, nelm: float, ediff: float, outcar: str) -> None:
    reason = outcar.rpartition("aborting loop")[2][:50] if "aborting loop" in outcar else ""
    if "hard stop" in reason:
        raise OutOfTime("VASP was stopped (LABORT in STOPCAR) before its density converged")
    if "EDIFF is reached" not in reason and (reason or n_steps >= nelm):
        raise NotConverged(f"VASP's density did not converge in {n_steps} steps (NELM={nelm:g})")
    if not abs(change) < ediff + _ROUNDING:
        raise NotConverged(
            f"VASP's density did not converge: the last step changed the energy by {change:.2g} "
            f"eV; expected less than EDIFF={ediff:g}"
        )


def check_espresso_log(text: str) -> None:
    """Checks what pw.x printed."""
    if "Maximum CPU time exceeded" in text or "stopped by user request" in text:
        raise OutOfTime("Quantum ESPRESSO ran out of time (max_seconds) or was stopped")
    if "convergence NOT achieved" in text:
        raise NotConverged("Quantum ESPRESSO's density did not converge")


def check_espresso(root: ElementTree.Element) -> None:
    """Checks the XML of pw.x, which says in which of its energies the density converged."""
    found = "output/convergence_info/scf_conv"
    achieved = root.findtext(f"{found}/convergence_achieved")
    if achieved is None:
        raise CalculationFailed(f"Quantum ESPRESSO's output has no {found}/convergence_achieved")
    n_steps, error, n_most, threshold = (
        float(root.findtext(path) or "nan")
        for path in (
            f"{found}/n_scf_steps",
            f"{found}/scf_error",
            "input/electron_control/max_nstep",
            "input/electron_control/conv_thr",
        )
    )
    converged = achieved.strip() == "true"
    if n_steps == 0 or (not converged and n_steps < n_most):
        raise OutOfTime("Quantum ESPRESSO ran out of time (max_seconds) or was stopped")
    if not converged or error > threshold:
        raise NotConverged(
            f"Quantum ESPRESSO's density did not converge: the estimated error is {2 * error:.2g} "
            f"Ry after {n_steps:g} steps"
        )


def check_cp2k(text: str) -> None:
    """Checks the output of CP2K."""
    if "exceeded requested execution time" in text:
        raise OutOfTime("CP2K ran out of time (WALLTIME)")
    if "SCF run NOT converged" in text:
        raise NotConverged("CP2K's density did not converge")


def check_file(path: Path, results: dict[str, Any], step: int = -1) -> bool:
    """Checks a file that ASE reads; returns whether the file says anything about convergence.

    Args:
        path: of the file; an OUTCAR beside a vasprun.xml is read, too.
        results: what ASE found in it.
        step: number of the structure in an OUTCAR, from 0; of other files all are checked.
    """
    if (told := results.get("converged")) is not None:
        if not told:
            raise NotConverged(f"{path.name} says that it did not converge (converged={told})")
        return True
    try:
        kind = filetype(str(path))
    except UnknownFileTypeError:
        return False
    if kind == "vasp-xml":
        check_vasp(xml_root(path), text_of(path.with_name("OUTCAR")))
    elif kind == "vasp-out":
        _check_outcar(text_of(path), step)
    elif kind == "espresso-out":
        check_espresso_log(text_of(path))
    else:
        return kind == "aims-output"  # whose reader refuses it
    return True


def check_calculator(calculator: Calculator) -> None:
    """Checks what an ASE calculator says after its calculation.

    Many say nothing. If such a calculator runs a program, a warning is given once.
    """
    told = calculator.results.get("converged", getattr(calculator, "converged", None))
    if isinstance(told, (bool, np.bool_)):
        if not told:
            raise NotConverged(f"{type(calculator).__name__} says that it did not converge")
    elif isinstance(calculator, (FileIOCalculator, GenericFileIOCalculator)):
        _warn_once(type(calculator).__name__)


@cache
def _warn_once(name: str) -> None:
    log.warning("%s of ASE does not say whether its density converged: labels are unchecked", name)
