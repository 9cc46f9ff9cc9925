"""Phonon-informed datasets, heads and bond attribution for SchNetPack.

The names of a script stand here, ``from schnetpack_phonon import Crystal, PhononEnsemble``; all
others in the folders. What a type checker reads is in ``__init__.pyi``.
"""

from schnetpack_phonon import _moved

__version__ = "0.2.0"

_moved.install()

__getattr__, __dir__ = _moved.names_of(
    __name__,
    """
    attribution.bond_attribution: attribute
    attribution.results: BondAttribution
    calculators.base: AseCalculator
    calculators.cp2k: CP2K
    calculators.espresso: Espresso
    calculators.gpaw: Gpaw
    calculators.tight_binding: TightBinding
    calculators.vasp: Vasp
    common.executors: process_pool
    data.datamodule: EnsembleData
    data.loading.loaders: GraphLoading
    data.reading: read_labels read_provenance read_structures
    data.splits: ParentSplit
    ensembles.base: Snapshot
    ensembles.fixed: ModeEnsemble
    ensembles.independent: RandomEnsemble
    ensembles.mixture: MixtureEnsemble
    ensembles.strained: StrainedEnsemble
    ensembles.thermal: MatchedEnsemble PhononEnsemble
    ensembles.trajectory: FileEnsemble
    evaluation.callbacks: BondAttributionCallback ReportCallback
    labels.finite_strain: FiniteStrain
    models.band_edges: BandEdges
    models.cutoffs: PolynomialCutoff
    models.elastic_response: ElasticResponse
    models.elastic_tensor: ElasticModuli ElasticTensor
    models.hamiltonian.head: HamiltonianEdges
    models.hamiltonian.environment: NoFeatures
    models.heads: BandGap Energy Intensive
    models.predict: ModelCalculator Predictor
    models.stress: HydrostaticStress StressTensor StressTrace
    models.task: ScaledOutput ScaledTask
    phonons.force_constants: FiniteDisplacements phonon_model
    phonons.harmonic: HarmonicModel
    phonons.instabilities: Instabilities
    phonons.phonopy_files: PhonopyFiles
    phonons.renormalization: Renormalised
    structures.crystals: Antiperovskites Crystal Crystals
    structures.files: StructureFile
    """,
)
