"""Networks in torch: MPO and hybrid layers, replacing layers of a model, training, activations."""

from mpodis.nn.activations import collect_activations, layer_inputs, output_sensitivity
from mpodis.nn.circuit_layer import CircuitLayer, exponentials
from mpodis.nn.compact_tnn import RECIPES, CompactTNN, train_tnn
from mpodis.nn.dense_network import DENSE_RECIPES, dense_network, train_dense
from mpodis.nn.external_circuits import ExternalCircuitLinear, with_external_circuits
from mpodis.nn.factorized_linear import FactorizedLinear
from mpodis.nn.hybrid_linear import HybridLinear
from mpodis.nn.hybrid_network import HybridNetwork, LayerSpec
from mpodis.nn.linear import linear_from_matrix
from mpodis.nn.moments import LayerStatistics, LowRankMoment
from mpodis.nn.monarch_linear import MonarchLinear
from mpodis.nn.mpo_linear import MPOLinear
from mpodis.nn.parameter_table import parameter_table
from mpodis.nn.permute_neurons import absorb_permutation
from mpodis.nn.positive_mpo import keep_positive, remove_positivity, train_positive_tnn
from mpodis.nn.replace_layers import PointwiseConv, compress_module, disentangle_module
from mpodis.nn.submodules import replace_layer
from mpodis.nn.training import (
    Recipe,
    TrainingRecord,
    accuracy,
    heal,
    predict,
    train_classifier,
)

__all__ = [
    "DENSE_RECIPES",
    "RECIPES",
    "CircuitLayer",
    "CompactTNN",
    "ExternalCircuitLinear",
    "FactorizedLinear",
    "HybridLinear",
    "HybridNetwork",
    "LayerSpec",
    "LayerStatistics",
    "LowRankMoment",
    "MPOLinear",
    "MonarchLinear",
    "PointwiseConv",
    "Recipe",
    "TrainingRecord",
    "absorb_permutation",
    "accuracy",
    "collect_activations",
    "compress_module",
    "dense_network",
    "disentangle_module",
    "exponentials",
    "heal",
    "keep_positive",
    "layer_inputs",
    "linear_from_matrix",
    "output_sensitivity",
    "parameter_table",
    "predict",
    "remove_positivity",
    "replace_layer",
    "train_classifier",
    "train_dense",
    "train_positive_tnn",
    "train_tnn",
    "with_external_circuits",
]
