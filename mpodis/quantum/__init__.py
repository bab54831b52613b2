"""Circuits on Qiskit: conversion, execution, gate counts and files.

The only part of the package that imports Qiskit. Everything outside acts on rows and counts sites
from the most significant bit; `convert` translates gates, and `state_preparation` vectors.

`convert` translates circuits, `export` writes them to files, `backends` transpiles them,
`gate_costs` and `inference_costs` count their gates, and `compilation` merges them.
`state_preparation` has the encodings, `readout` the readouts and `runners` what executes circuits;
`execution` runs a layer on a runner, and `evaluation` a whole network; `depths`
chooses the depth of a compiled circuit.
"""

from mpodis.quantum.backends import BACKENDS
from mpodis.quantum.compilation import (
    JointCompilation,
    MergedLayers,
    QiskitApproximation,
    absorb_core,
    compile_jointly,
    merge,
    merge_layers,
    qiskit_approximation,
)
from mpodis.quantum.convert import from_qiskit, to_qiskit
from mpodis.quantum.depths import DepthChoice, DepthRow, best_depth
from mpodis.quantum.evaluation import Evaluation, evaluate
from mpodis.quantum.execution import execute_layer, run_circuit
from mpodis.quantum.export import (
    ExportedCircuits,
    export_circuits,
    from_qasm3,
    from_qpy,
    load_circuits,
    to_qasm3,
    to_qpy,
)
from mpodis.quantum.gate_costs import CostTable, HardwareCost, cost_table, gate_cost
from mpodis.quantum.inference_costs import InferenceCost, InferenceRow, inference_cost
from mpodis.quantum.readout import (
    READOUTS,
    Hypercube,
    Interference,
    Measurement,
    Readout,
    Tomography,
    count_circuits,
    count_shots,
    invert_counts,
    register_readout,
    sample_readout,
)
from mpodis.quantum.runners import (
    DeviceRunner,
    NoisyRunner,
    Runner,
    ShotRunner,
    StatevectorRunner,
)
from mpodis.quantum.state_preparation import (
    ENCODINGS,
    AmplitudeTree,
    BrickwallEncoding,
    Encoding,
    MPSEncoding,
    PreparedStates,
    QiskitEncoding,
    StaircaseEncoding,
    TreeEncoding,
    amplitude_encoding,
    normalise,
    register_encoding,
)

__all__ = [
    "BACKENDS",
    "ENCODINGS",
    "READOUTS",
    "AmplitudeTree",
    "BrickwallEncoding",
    "CostTable",
    "DepthChoice",
    "DepthRow",
    "DeviceRunner",
    "Encoding",
    "Evaluation",
    "ExportedCircuits",
    "HardwareCost",
    "Hypercube",
    "InferenceCost",
    "InferenceRow",
    "Interference",
    "JointCompilation",
    "MPSEncoding",
    "Measurement",
    "MergedLayers",
    "NoisyRunner",
    "PreparedStates",
    "QiskitApproximation",
    "QiskitEncoding",
    "Readout",
    "Runner",
    "ShotRunner",
    "StaircaseEncoding",
    "StatevectorRunner",
    "Tomography",
    "TreeEncoding",
    "absorb_core",
    "amplitude_encoding",
    "best_depth",
    "compile_jointly",
    "cost_table",
    "count_circuits",
    "count_shots",
    "evaluate",
    "execute_layer",
    "export_circuits",
    "from_qasm3",
    "from_qiskit",
    "from_qpy",
    "gate_cost",
    "inference_cost",
    "invert_counts",
    "load_circuits",
    "merge",
    "merge_layers",
    "normalise",
    "qiskit_approximation",
    "register_encoding",
    "register_readout",
    "run_circuit",
    "sample_readout",
    "to_qasm3",
    "to_qiskit",
    "to_qpy",
]
