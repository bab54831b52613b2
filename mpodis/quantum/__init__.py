"""Disentangling circuits on Qiskit: conversion, execution, gate counts and files.

The only part of the package that imports Qiskit. Everything outside speaks row action and counts
sites from the most significant bit; `convert`, `exchange` and `encode` translate, once and for all.
"""

from mpodis.quantum.approximate import Approximated, qiskit_approximation
from mpodis.quantum.convert import to_qiskit
from mpodis.quantum.cost import CostTable, HardwareCost, cost_table, gate_cost
from mpodis.quantum.device import DeviceRunner
from mpodis.quantum.encode import AmplitudeTree, amplitude_encoding, normalise
from mpodis.quantum.evaluate import Evaluation, evaluate
from mpodis.quantum.exchange import from_qiskit, from_quimb, to_quimb
from mpodis.quantum.export import (
    Exported,
    export_circuits,
    from_qasm3,
    from_qpy,
    load_circuits,
    to_qasm3,
    to_qpy,
)
from mpodis.quantum.inference import InferenceCost, InferenceRow, inference_cost
from mpodis.quantum.joint import (
    Chain,
    Joint,
    absorb_core,
    compile_jointly,
    merge,
    merge_layers,
)
from mpodis.quantum.noise import NoisyRunner
from mpodis.quantum.readout import Hypercube, Interference, Readout, Tomography, invert_counts
from mpodis.quantum.run import Runner, ShotRunner, StatevectorRunner, hybrid_layer, run_circuit

__all__ = [
    "AmplitudeTree",
    "Approximated",
    "Chain",
    "CostTable",
    "DeviceRunner",
    "Evaluation",
    "Exported",
    "HardwareCost",
    "Hypercube",
    "InferenceCost",
    "InferenceRow",
    "Interference",
    "Joint",
    "NoisyRunner",
    "Readout",
    "Runner",
    "ShotRunner",
    "StatevectorRunner",
    "Tomography",
    "absorb_core",
    "amplitude_encoding",
    "compile_jointly",
    "cost_table",
    "evaluate",
    "export_circuits",
    "from_qasm3",
    "from_qiskit",
    "from_qpy",
    "from_quimb",
    "gate_cost",
    "hybrid_layer",
    "inference_cost",
    "invert_counts",
    "load_circuits",
    "merge",
    "merge_layers",
    "normalise",
    "qiskit_approximation",
    "run_circuit",
    "to_qasm3",
    "to_qiskit",
    "to_qpy",
    "to_quimb",
]
