"""Where names are: those that a package gives, and modules that were elsewhere before 0.2.

Files written by earlier versions (trained models, manifests, configurations) name modules of then.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

# Module of version 0.1, and where its names are now.
_MOVED = """\
_gpaw_script: calculators._gpaw_script  alloys: structures.alloys
attributable: attribution.edges attribution.bond_attribution common.errors
band_edges: models.band_edges
bond_attribution: attribution.results  bond_command: cli.attribute
bond_export: attribution.results  bond_figures: attribution.figures
bond_methods: attribution.methods  bond_report: attribution.report  bonds: models.bond_scalars
callbacks: evaluation.callbacks  card: data.card  cluster: labels.cluster
combined_ensembles: ensembles.trajectory ensembles.strained ensembles.mixture
comparison: evaluation.comparison.page
comparison_figures: evaluation.comparison.figures common.properties
comparison_tables: evaluation.comparison.tables  components: evaluation.test_sets
coverage: evaluation.comparison.coverage  coverage_figure: evaluation.comparison.figures
coverage_section: evaluation.comparison.coverage  cp2k: calculators.cp2k
cp2k_output: calculators.cp2k  cross_answers: evaluation.predictions
cross_errors: evaluation.comparison.uncertainty
cross_predictions: evaluation.comparison.cached_predictions evaluation.runs
cross_tests: evaluation.comparison.cross_tests  cutoffs: models.cutoffs
database: data.database data.export data.reading  datamodule: data.datamodule data.statistics
determinism: data.loading.determinism  dispersion: phonons.dispersion
distance: ensembles.active.distance  edges: attribution.edges  elastic_moduli: models.elastic_tensor
elastic_response: models.elastic_response  elastic_tensor: models.elastic_tensor
elasticity: structures.elasticity  energy: models.heads  epochs: data.splits
espresso: calculators.espresso  espresso_output: calculators.espresso  exchange: labels.offline
executors: common.executors common.errors
external_code: calculators.external_code calculators.output
files: common.files  finite_strain: labels.finite_strain  fixed_ensembles: ensembles.fixed
force_constants: phonons.force_constants  force_pool: phonons.force_pool
freezing: attribution.faithfulness  generation: data.generation  gpaw: calculators.gpaw
gpaw_output: calculators.gpaw  graph_cache: data.loading.graph_cache  graphs: data.loading.graphs
heads: models.heads  held_out: evaluation.test_sets common.errors common.digests
instabilities: phonons.instabilities  label_export: data.export
label_maintenance: labels.maintenance  label_store: labels.store common.errors
labelling: labels.labelling labels.relaxation common.errors common.digests
learning_curves: evaluation.comparison.learning_curves  loading: data.loading.loaders
manifest: labels.manifest common.errors common.digests  metrics: models.task
modes: phonons.modes structures.crystals  outcomes: labels.results  page: common.page
paths: attribution.paths  phonopy_files: phonons.phonopy_files
plotting: common.style ensembles.preview phonons.dispersion data.card
    evaluation.run_report attribution.figures
predict: models.predict  predictions: evaluation.predictions  preparation: data.preparation
preview: ensembles.preview  progress: common.progress labels.monitor.tally
properties: common.properties  relaxation: labels.relaxation
renormalization: phonons.renormalization
report: evaluation.run_report common.errors common.page attribution.results
rows: data.database common.errors data.export
run_groups: evaluation.comparison.run_groups common.errors
run_vibrations: evaluation.thermal.vibrations  runs: evaluation.runs common.errors
sampling: ensembles.sampler  snapshots: ensembles.base structures.crystals
splits: data.splits
streams: common.random  stress: models.stress  structure_pairs: data.reading
sweep_report: cli.sweep_report  task: models.task  thermal: evaluation.thermal.averages
thermal_figures: evaluation.thermal.page  thermal_report: evaluation.thermal.page
tight_binding: calculators.tight_binding  trust: attribution.checks
trust_table: attribution.checks  untrained: attribution.faithfulness  vasp: calculators.vasp
vasp_output: calculators.vasp  voigt: models.elastic_tensor
"""
# Public name of version 0.1, and its name now; a method is that of a calculator without options.
_RENAMED = """\
bond_figures.freezing: attribution.figures.predicted_against_actual
calculators.EDGE_LABELS: calculators.base.EDGE_LABELS
calculators.FORCE_LABELS: calculators.base.FORCE_LABELS
calculators.Labels: common.properties.Labels
calculators.UnavailableError: common.errors.UnavailableError
calculators.band_edges: calculators.reading.levels.band_edges
calculators.check_size: calculators.base.check_size
calculators.mesh_edges: calculators.reading.levels.mesh_edges
calculators.package_version: calculators.base.package_version
cp2k_output.read_output: calculators.cp2k.CP2K.read_output
cp2k_output.read_version: calculators.cp2k.CP2K.read_version
cross_errors.LEVEL: common.random.LEVEL
cross_errors.N_BOOTSTRAP: common.random.N_BOOTSTRAP
espresso_output.NAME: calculators.espresso.Espresso.name
espresso_output.read_output: calculators.espresso.Espresso.read_output
espresso_output.read_version: calculators.espresso.Espresso.read_version
freezing.freezing: attribution.faithfulness.subset_effects
gpaw_output.NAME: calculators.gpaw.Gpaw.name
gpaw_output.read_output: calculators.gpaw.Gpaw.read_output
gpaw_output.read_version: calculators.gpaw.Gpaw.read_version
manifest.digest: common.digests.file_digest
outcomes.Outcome: labels.results.Result
outcomes.read_outcomes: labels.results.read_results
paths.Path: attribution.paths.StraightPath
phonons.THZ_PER_SQRT_FC: phonons.harmonic.THZ_PER_SQRT_FC
phonons.shortest_distance: structures.crystals.shortest_distance
structures.LATTICE_CONSTANTS: structures.crystals.LATTICE_CONSTANTS
structures.digest: common.digests.contents_digest
trust.FROZEN_SHARE: attribution.checks.SUBSET_SHARE
trust_table.trust_table: attribution.checks.checks_table
trust_table.trust_text: attribution.checks.checks_text
vasp_output.NAME: calculators.vasp.Vasp.name
vasp_output.read_output: calculators.vasp.Vasp.read_output
vasp_output.read_version: calculators.vasp.Vasp.read_version
voigt.multiplicity: models.elastic_tensor.multiplicities
"""


def names_of(package: str, names: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that loads its modules when needed.

    Args:
        package: its name.
        names: of its modules, each behind the module's own and a colon.
    """
    places = {name: module for module, own in _table(names).items() for name in own}

    def get(name: str) -> Any:
        if name not in places:
            return _renamed(package, name)
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return get, lambda: sorted(places)


def _table(text: str) -> dict[str, list[str]]:
    """Words behind each word that ends with a colon."""
    found: dict[str, list[str]] = {}
    for word in text.split():
        if word.endswith(":"):
            own = found.setdefault(word[:-1], [])
        else:
            own.append(word)
    return found


def _renamed(module: str, name: str) -> Any:
    """What a name of version 0.1 means now, with a warning that names the new one."""
    root = __package__
    place = _table(_RENAMED).get(f"{module}.{name}".removeprefix(f"{root}."))
    if place is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is now {root}.{place[0]}", FutureWarning, stacklevel=3)
    owner, _, new = place[0].rpartition(".")
    found = resolve_name(f"{root}.{owner}")
    return getattr(object.__new__(found) if isinstance(found, type) else found, new)


class _Finder(MetaPathFinder, Loader):
    """Imports a module by its former path, with a warning that names the new one."""

    def __init__(self) -> None:
        root = __package__
        moved = _table(_MOVED)
        self.places = {f"{root}.{old}": [f"{root}.{n}" for n in new] for old, new in moved.items()}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in self.places else None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = self.places[old]
        warnings.warn(f"{old} is now {' and '.join(new)}", FutureWarning, stacklevel=2)
        for place in reversed(new):
            vars(module).update(
                (k, v) for k, v in vars(import_module(place)).items() if k[:2] != "__"
            )
        vars(module)["__getattr__"] = lambda name: _renamed(old, name)


def install() -> None:
    """Makes former import paths work."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
