"""Trained models: files that run no code, their units, calculators, start of further training."""

from schnetpack_phonon._moved import names_of

__getattr__, __dir__ = names_of(
    __name__,
    """
    calculator: TrainedModel model_of_round
    start_from: StartFrom start_from
    targets: build
    units: units_of units_of_data
    weights: load_trained read_weights save_weights stored_model weights_file write_weights
    """,
)
