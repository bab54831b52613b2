"""A network's MPO layer as the network sees it: its inputs, what is felt of it, its replacement."""

from __future__ import annotations

import math

import numpy as np
import torch

from mpodis.data import Dataset
from mpodis.factorization import Factorization
from mpodis.fit import inner
from mpodis.measures import second_moment
from mpodis.nn import (
    CompactTNN,
    FactorizedLinear,
    accuracy,
    layer_inputs,
    linear_from_matrix,
    output_sensitivity,
    replace_layer,
)
from mpodis.sites import mpo_to_dense
from mpodis.structured import absorb_mean_into_bias

__all__ = ["LayerInNetwork"]


class LayerInNetwork:
    """The layer inside its network: what it sees, what is felt of it, and how to replace it."""

    def __init__(self, model: CompactTNN, mpo, data: Dataset) -> None:
        self.model, self.data, self.matrix = model, data, mpo_to_dense(mpo)
        inputs = layer_inputs(model, "mpo", data.x_train)
        self.mean = inputs.mean(axis=0)
        self.covariance = second_moment(inputs)
        self.centred = second_moment(inputs, centred=True)
        self.sensitivity = output_sensitivity(model, "mpo", data.x_train)

    def moments(self, objective: str) -> dict:
        """What an objective weighs errors with; under "sensitivity" a bias carries the mean."""
        if objective == "sensitivity":
            return {"covariance": self.centred, "sensitivity": self.sensitivity}
        return {"covariance": self.covariance}

    def bias(self, objective: str, matrix) -> np.ndarray | None:
        if objective != "sensitivity":
            return None
        return absorb_mean_into_bias(self.matrix, matrix, self.mean)

    def activation_error(self, objective: str, matrix) -> float:
        """|X M - (X A + b)| / |X M|; b, where there is one, takes the mean out."""
        off = self.matrix - matrix
        seen = self.centred if objective == "sensitivity" else self.covariance
        whole = inner(self.matrix, self.matrix, self.covariance)
        return math.sqrt(max(0.0, inner(off, off, seen)) / whole)

    def score(self, module: torch.nn.Module) -> float:
        """Test accuracy with the layer replaced."""
        replaced = replace_layer(self.model, "mpo", module)
        return accuracy(replaced, self.data.x_test, self.data.y_test)

    def score_matrix(self, objective: str, matrix) -> float:
        """Test accuracy with a matrix in place of the layer, and the objective's bias."""
        bias = self.bias(objective, matrix)
        return self.score(linear_from_matrix(matrix, bias=bias, dtype=torch.float64))

    def factorized(self, factorization: Factorization, objective: str) -> FactorizedLinear:
        bias = self.bias(objective, factorization.to_dense())
        return FactorizedLinear(factorization, bias=bias, dtype=torch.float64)
