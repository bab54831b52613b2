"""Networks: MPO layers, swapping layers, training, and the paper's compact TNN. Needs torch."""

from mpodis.nn.activations import collect_activations, layer_inputs, output_sensitivity
from mpodis.nn.circuits import TrainedCircuit, exponentials
from mpodis.nn.dense import DENSE_RECIPES, dense_network, train_dense
from mpodis.nn.executed import ExecutedLayer, executed_model
from mpodis.nn.hybrid import HybridLinear
from mpodis.nn.layers import FactorizedLinear, MPOLinear, linear_from_matrix, replace_layer
from mpodis.nn.moments import LayerStatistics, LowRankMoment
from mpodis.nn.monarch import MonarchLinear
from mpodis.nn.order import absorb_permutation
from mpodis.nn.positive import keep_positive, remove_positivity, train_positive_tnn
from mpodis.nn.stacks import HybridNetwork, Stage
from mpodis.nn.swap import (
    Pointwise,
    compress_module,
    disentangle_module,
    heal,
    parameter_table,
)
from mpodis.nn.tnn import RECIPES, CompactTNN, Recipe, train_tnn
from mpodis.nn.training import (
    TrainingRecord,
    accuracy,
    predict,
    train_classifier,
)

__all__ = [
    "absorb_permutation",
    "DENSE_RECIPES",
    "RECIPES",
    "CompactTNN",
    "ExecutedLayer",
    "FactorizedLinear",
    "HybridLinear",
    "HybridNetwork",
    "LayerStatistics",
    "Pointwise",
    "LowRankMoment",
    "MPOLinear",
    "MonarchLinear",
    "Recipe",
    "Stage",
    "TrainedCircuit",
    "TrainingRecord",
    "accuracy",
    "collect_activations",
    "compress_module",
    "dense_network",
    "executed_model",
    "disentangle_module",
    "exponentials",
    "heal",
    "keep_positive",
    "layer_inputs",
    "remove_positivity",
    "linear_from_matrix",
    "output_sensitivity",
    "parameter_table",
    "predict",
    "replace_layer",
    "train_classifier",
    "train_dense",
    "train_positive_tnn",
    "train_tnn",
]
