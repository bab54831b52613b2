"""Disentangling circuits on Qiskit: conversion, execution and gate counts.

The only part of the package that imports Qiskit. Everything outside speaks row action and counts
sites from the most significant bit; `convert` and `encode` translate, once and for all.
"""

from mpodis.quantum.convert import to_qiskit
from mpodis.quantum.cost import CostTable, HardwareCost, cost_table, gate_cost
from mpodis.quantum.encode import amplitude_encoding, normalise
from mpodis.quantum.run import Runner, StatevectorRunner, hybrid_layer, run_circuit

__all__ = [
    "CostTable",
    "HardwareCost",
    "Runner",
    "StatevectorRunner",
    "amplitude_encoding",
    "cost_table",
    "gate_cost",
    "hybrid_layer",
    "normalise",
    "run_circuit",
    "to_qiskit",
]
