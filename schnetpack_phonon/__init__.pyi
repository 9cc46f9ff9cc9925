"""Types of the names in ``__init__.py``."""

from schnetpack_phonon.attribution.bond_attribution import attribute as attribute
from schnetpack_phonon.attribution.results import BondAttribution as BondAttribution
from schnetpack_phonon.calculators.base import AseCalculator as AseCalculator
from schnetpack_phonon.calculators.cp2k import CP2K as CP2K
from schnetpack_phonon.calculators.espresso import Espresso as Espresso
from schnetpack_phonon.calculators.gpaw import Gpaw as Gpaw
from schnetpack_phonon.calculators.tight_binding import TightBinding as TightBinding
from schnetpack_phonon.calculators.vasp import Vasp as Vasp
from schnetpack_phonon.common.executors import process_pool as process_pool
from schnetpack_phonon.data.datamodule import EnsembleData as EnsembleData
from schnetpack_phonon.data.loading.loaders import GraphLoading as GraphLoading
from schnetpack_phonon.data.reading import read_labels as read_labels
from schnetpack_phonon.data.reading import read_provenance as read_provenance
from schnetpack_phonon.data.reading import read_structures as read_structures
from schnetpack_phonon.data.splits import ParentSplit as ParentSplit
from schnetpack_phonon.ensembles.base import Snapshot as Snapshot
from schnetpack_phonon.ensembles.fixed import ModeEnsemble as ModeEnsemble
from schnetpack_phonon.ensembles.independent import RandomEnsemble as RandomEnsemble
from schnetpack_phonon.ensembles.mixture import MixtureEnsemble as MixtureEnsemble
from schnetpack_phonon.ensembles.strained import StrainedEnsemble as StrainedEnsemble
from schnetpack_phonon.ensembles.thermal import MatchedEnsemble as MatchedEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble as PhononEnsemble
from schnetpack_phonon.ensembles.trajectory import FileEnsemble as FileEnsemble
from schnetpack_phonon.evaluation.callbacks import (
    BondAttributionCallback as BondAttributionCallback,
)
from schnetpack_phonon.evaluation.callbacks import ReportCallback as ReportCallback
from schnetpack_phonon.labels.finite_strain import FiniteStrain as FiniteStrain
from schnetpack_phonon.models.band_edges import BandEdges as BandEdges
from schnetpack_phonon.models.cutoffs import PolynomialCutoff as PolynomialCutoff
from schnetpack_phonon.models.elastic_response import ElasticResponse as ElasticResponse
from schnetpack_phonon.models.elastic_tensor import ElasticModuli as ElasticModuli
from schnetpack_phonon.models.elastic_tensor import ElasticTensor as ElasticTensor
from schnetpack_phonon.models.hamiltonian.environment import NoFeatures as NoFeatures
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges as HamiltonianEdges
from schnetpack_phonon.models.heads import BandGap as BandGap
from schnetpack_phonon.models.heads import Energy as Energy
from schnetpack_phonon.models.heads import Intensive as Intensive
from schnetpack_phonon.models.predict import ModelCalculator as ModelCalculator
from schnetpack_phonon.models.predict import Predictor as Predictor
from schnetpack_phonon.models.stress import HydrostaticStress as HydrostaticStress
from schnetpack_phonon.models.stress import StressTensor as StressTensor
from schnetpack_phonon.models.stress import StressTrace as StressTrace
from schnetpack_phonon.models.task import ScaledOutput as ScaledOutput
from schnetpack_phonon.models.task import ScaledTask as ScaledTask
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements as FiniteDisplacements
from schnetpack_phonon.phonons.force_constants import phonon_model as phonon_model
from schnetpack_phonon.phonons.harmonic import HarmonicModel as HarmonicModel
from schnetpack_phonon.phonons.instabilities import Instabilities as Instabilities
from schnetpack_phonon.phonons.phonopy_files import PhonopyFiles as PhonopyFiles
from schnetpack_phonon.phonons.renormalization import Renormalised as Renormalised
from schnetpack_phonon.structures.crystals import Antiperovskites as Antiperovskites
from schnetpack_phonon.structures.crystals import Crystal as Crystal
from schnetpack_phonon.structures.crystals import Crystals as Crystals
from schnetpack_phonon.structures.files import StructureFile as StructureFile

__version__: str
