"""The MPO layer inside a trained network: its inputs, its weight in the loss, its replacement."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["LayerInNetwork"]


class LayerInNetwork:
    """The MPO layer of a network with the moments that weigh its errors, and its replacement.

    Parameters
    ----------
    model : CompactTNN
    mpo : MatrixProductOperator
        Its MPO layer.
    data : Dataset
        The moments are those of the training images, accuracies those of the test images.

    Attributes
    ----------
    matrix : array (inputs, outputs)
    mean : array (inputs,)
        Of the layer's inputs.
    covariance, centred : array (inputs, inputs)
        Second moments of the inputs, about 0 and about the mean.
    sensitivity : array (outputs, outputs)
        Second moment of the loss's gradients, see `output_sensitivity`.
    """

    def __init__(self, model: CompactTNN, mpo: MatrixProductOperator, data: Dataset) -> None:
        self.model, self.data, self.matrix = model, data, mpo_to_dense(mpo)
        inputs = layer_inputs(model, "mpo", data.x_train)
        self.mean = inputs.mean(axis=0)
        self.covariance = second_moment(inputs)
        self.centred = second_moment(inputs, centred=True)
        self.sensitivity = output_sensitivity(model, "mpo", data.x_train)

    def moments(self, objective: str) -> dict[str, Any]:
        """Moments by which an objective weighs errors; under "sensitivity" about the mean."""
        if objective == "sensitivity":
            return {"covariance": self.centred, "sensitivity": self.sensitivity}
        return {"covariance": self.covariance}

    def bias(self, objective: str, matrix: np.ndarray) -> np.ndarray | None:
        """The bias that restores the mean output under "sensitivity"; else None."""
        if objective != "sensitivity":
            return None
        return absorb_mean_into_bias(self.matrix, matrix, self.mean)

    def activation_error(self, objective: str, matrix: np.ndarray) -> float:
        """|X M - (X A + b)| / |X M|, b the objective's bias, if it has one."""
        error = self.matrix - matrix
        covariance = self.moments(objective)["covariance"]
        norm = inner(self.matrix, self.matrix, self.covariance)
        return math.sqrt(max(0.0, inner(error, error, covariance)) / norm)

    def score(self, module: torch.nn.Module) -> float:
        """Test accuracy with the layer replaced."""
        replaced = replace_layer(self.model, "mpo", module)
        return accuracy(replaced, self.data.x_test, self.data.y_test)

    def score_matrix(self, objective: str, matrix: np.ndarray) -> float:
        """Test accuracy with a matrix in place of the layer, and the objective's bias."""
        bias = self.bias(objective, matrix)
        return self.score(linear_from_matrix(matrix, bias=bias, dtype=torch.float64))

    def factorized(self, factorization: Factorization, objective: str) -> FactorizedLinear:
        """The factorization as a layer in double precision, with the objective's bias."""
        bias = self.bias(objective, factorization.to_dense())
        return FactorizedLinear(factorization, bias=bias, dtype=torch.float64)
