"""Networks: MPO layers, swapping layers, training, and the paper's compact TNN. Needs torch."""

from mpodis.nn.layers import FactorizedLinear, MPOLinear, linear_from_matrix, replace_layer
from mpodis.nn.tnn import RECIPES, CompactTNN, Recipe, train_tnn
from mpodis.nn.training import (
    TrainingRecord,
    accuracy,
    layer_inputs,
    output_sensitivity,
    predict,
    train_classifier,
)

__all__ = [
    "RECIPES",
    "CompactTNN",
    "FactorizedLinear",
    "MPOLinear",
    "Recipe",
    "TrainingRecord",
    "accuracy",
    "layer_inputs",
    "linear_from_matrix",
    "output_sensitivity",
    "predict",
    "replace_layer",
    "train_classifier",
    "train_tnn",
]
