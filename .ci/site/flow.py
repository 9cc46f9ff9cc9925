"""Draws ``examples/figures/flow.png``: what leads from a crystal to an answer."""

from pathlib import Path

import matplotlib.pyplot as plt

FIGURE = Path(__file__).parents[2] / "examples" / "figures" / "flow.png"
STEPS = [
    ("crystal", "POSCAR, CIF,\nphonopy file", "data/structure"),
    ("phonons", "force constants,\nmodes", "data/phonons"),
    ("ensemble", "displaced\nsnapshots", "data/ensemble"),
    ("labels", "energy, gap, stress\nof each snapshot", "data/calculator"),
    ("model", "representation\nand heads", "heads"),
]
CONTROL = ("control", "random or matched\nsnapshots", "data/ensemble=matched")
ANSWERS = [
    ("test", "same unseen\nstructures for all"),
    ("temperature", "averages of gap,\nstress, ..."),
    ("bonds", "which of them carry\nthe prediction"),
]
WIDTH, HEIGHT, GAP = 1.9, 1.15, 0.55
BLUE, ORANGE, GREEN = "#d6e6f4", "#fbe0c8", "#dcefd9"


def main() -> None:
    figure, axes = plt.subplots(figsize=(10.2, 4.3), layout="constrained")
    across = [k * (WIDTH + GAP) for k in range(len(STEPS))]
    for x, step in zip(across, STEPS, strict=True):
        box(axes, x, 0, *step, colour=BLUE)
    for x in across[1:]:
        arrow(axes, (x - GAP, HEIGHT / 2), (x, HEIGHT / 2))
    box(axes, across[2], -2.0, *CONTROL, colour=ORANGE)
    arrow(axes, (across[1] + WIDTH / 2, 0), (across[2], -2.0 + HEIGHT / 2), "thermal amplitudes")
    arrow(axes, (across[2] + WIDTH, -2.0 + HEIGHT / 2), (across[3] + WIDTH / 2, 0))
    for x, answer in zip(across[2:], ANSWERS, strict=True):
        box(axes, x, 2.0, *answer, colour=GREEN)
        arrow(axes, (across[4] + WIDTH / 2, HEIGHT), (x + WIDTH / 2, 2.0))
    axes.set(xlim=(-0.1, across[-1] + WIDTH + 0.1), ylim=(-2.1, 3.3), aspect="equal")
    axes.axis("off")
    figure.savefig(FIGURE, dpi=150)


def box(axes, x, y, name, content, option="", *, colour) -> None:
    axes.add_patch(plt.Rectangle((x, y), WIDTH, HEIGHT, facecolor=colour, edgecolor="0.4"))
    middle = x + WIDTH / 2
    axes.text(middle, y + HEIGHT - 0.08, name, ha="center", va="top", weight="bold", size=10)
    axes.text(middle, y + 0.56, content, ha="center", va="center", size=8)
    axes.text(middle, y + 0.06, option, ha="center", va="bottom", size=7, family="monospace")


def arrow(axes, start, end, words="") -> None:
    style = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 2, "shrinkB": 2}
    axes.annotate("", end, start, arrowprops=style)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    axes.text(x - 0.1, y - 0.1, words, ha="right", va="top", size=8, color="0.3")


if __name__ == "__main__":
    main()
