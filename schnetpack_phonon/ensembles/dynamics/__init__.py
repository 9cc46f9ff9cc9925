"""Molecular dynamics as an ensemble: integrator, checks, trajectories, figures."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    checks: DynamicsError check_equilibrium check_stretch
    ensemble: MolecularDynamics
    figures: traces
    langevin: Langevin State Stretch advance initial_state
    sampling: correlation_time
    trajectories: Trajectories
    """,
)
