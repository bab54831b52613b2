"""Disentangling circuits on Qiskit: conversion, execution and gate counts.

The only part of the package that imports Qiskit. Everything outside speaks row action and counts
sites from the most significant bit; `convert` and `encode` translate, once and for all.
"""

from mpodis.quantum.convert import to_qiskit
from mpodis.quantum.cost import CostTable, HardwareCost, cost_table, gate_cost
from mpodis.quantum.encode import AmplitudeTree, amplitude_encoding, normalise
from mpodis.quantum.noise import NoisyRunner
from mpodis.quantum.readout import Hypercube, Interference, Readout, Tomography, invert_counts
from mpodis.quantum.run import Runner, ShotRunner, StatevectorRunner, hybrid_layer, run_circuit

__all__ = [
    "AmplitudeTree",
    "CostTable",
    "HardwareCost",
    "Hypercube",
    "Interference",
    "NoisyRunner",
    "Readout",
    "Runner",
    "ShotRunner",
    "StatevectorRunner",
    "Tomography",
    "amplitude_encoding",
    "cost_table",
    "gate_cost",
    "hybrid_layer",
    "invert_counts",
    "normalise",
    "run_circuit",
    "to_qiskit",
]
