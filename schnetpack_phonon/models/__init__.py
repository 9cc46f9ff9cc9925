"""Output modules, the task that trains them, and trained models in use.

Files of output modules do without ``from __future__ import annotations``: TorchScript reads types.
"""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    band_edges: BandEdges closed edge_fit edge_labels
    bond_scalars: BondScalars crystal_labels directions volumes
    cutoffs: PolynomialCutoff check_smooth cutoff_of
    elastic_response: ElasticResponse with_elastic_response
    elastic_tensor: ElasticModuli ElasticTensor dyads isotropic isotropic_part multiplicities
        square_products symmetric_part unit
    heads: BandGap Energy Intensive check_features check_gap check_unit mean_over_atoms opened
        precise scalar_features
    predict: ModelCalculator Predictor ase_results with_precise_offsets
    stress: HydrostaticStress StressTensor StressTrace
    task: RelativeFrobeniusError ScaledOutput ScaledTask
    trained.calculator: TrainedModel
    trained.weights: load_trained
    """,
)
