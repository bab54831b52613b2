"""Circuits directly on a dense matrix, W ~ Q R and W ~ U S V (end of Sec. IV before IV.1)."""

from mpodis.direct.factors import CircuitFactors, circuit_qr, circuit_svd

__all__ = ["CircuitFactors", "circuit_qr", "circuit_svd"]
