"""Table and picture of the rounds of active learning."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.page import Picture, Section, Table, strings, write_page
from schnetpack_phonon.common.style import color, grid, marker
from schnetpack_phonon.evaluation.active.rounds import ALL, RoundErrors, read_rounds

_WORDS = (
    "Errors of the potential of each round on the structures that its own dynamics found, before "
    "one was trained on them. They are the farthest from all before: errors of others are smaller."
)
_FORMATS = {
    "force error (%)": ".1f",
    "force error (meV/Å)": ".0f",
    "energy error (meV/atom)": ".2f",
    "stress error (GPa)": ".3f",
}


def rounds_report(folder: Path, out: Path, force_error: float | None = None) -> str:
    """Writes a page (``index.html``, ``report.md``) and returns its text.

    Args:
        folder: of the runs, one of each round.
        out: folder of the page.
        force_error: relative error that is asked for.

    Raises:
        RunError: if no round has found structures yet.
    """
    found = {number: _several(own) for number, own in read_rounds(folder).items()}
    if not found:
        raise RunError(f"no round of active learning with new structures in {folder.absolute()}")
    data = pd.DataFrame([_line(k, name, e) for k, own in found.items() for name, e in own.items()])
    figure = errors_by_round(found, force_error)
    caption = "Errors of the potential of each round, and replicas that left what it knew."
    items: list[Table | Picture] = [
        Table("rounds", strings(data, _FORMATS), data),
        Picture("errors_by_round", caption, figure),
    ]
    places = write_page(out, "Active learning", [Section("", [_WORDS], items)])
    return places["table"].read_text(encoding="utf-8")


def _several(errors: dict[str, RoundErrors]) -> dict[str, RoundErrors]:
    """Without the errors of all crystals if there is one only."""
    return errors if len(errors) > 2 else {k: own for k, own in errors.items() if k != ALL}


def _line(number: int, name: str, errors: RoundErrors) -> dict[str, str | int | float | None]:
    return {
        "potential of round": number - 1,
        "crystal": name,
        "new structures": errors.n,
        **dict(
            zip(
                _FORMATS,
                (100 * errors.relative, errors.force, errors.energy, errors.stress),
                strict=True,
            )
        ),
        "replicas": errors.n_replicas,
        "ended early": errors.n_ended,
    }


def errors_by_round(
    found: dict[int, dict[str, RoundErrors]], force_error: float | None = None
) -> Figure:
    """Errors of forces and energy, and replicas that ended early, against the round.

    Args:
        found: of :func:`.read_rounds`.
        force_error: a line at this relative error.
    """
    names = list(dict.fromkeys(name for own in found.values() for name in own))
    figure, ((of_forces, of_energies, of_replicas),) = grid(1, 3, (3.4, 3.0))
    for k, name in enumerate(names):
        rounds = [n for n, own in found.items() if name in own]
        own = [found[n][name] for n in rounds]
        before = [n - 1 for n in rounds]
        style = {"color": color(k), "marker": marker(k), "lw": 2.2 if name == ALL else 1.0, "ms": 5}
        of_forces.plot(before, [100 * e.relative for e in own], label=name, **style)
        of_energies.plot(before, [e.energy for e in own], label=name, **style)
    rounds = [n - 1 for n in found]
    crystals = [[e for name, e in own.items() if name != ALL] for own in found.values()]
    for what, shade in (("n_replicas", "0.85"), ("n_ended", "0.35")):
        numbers = [sum(getattr(e, what) for e in own) for own in crystals]
        of_replicas.bar(rounds, numbers, color=shade)
    if force_error:
        of_forces.axhline(100 * force_error, color="0.3", lw=0.8, ls="--")
    of_forces.set_ylabel("error of forces (% of their rms)")
    of_energies.set_ylabel("mean error of energy (meV/atom)")
    of_replicas.set_ylabel("replicas; dark: ended early")
    of_replicas.yaxis.get_major_locator().set_params(integer=True)
    for axis in (of_forces, of_energies, of_replicas):
        axis.set_xlabel("potential of round")
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
        axis.xaxis.get_major_locator().set_params(integer=True)
    of_forces.legend(frameon=False, fontsize="small")
    return figure
