"""The Heisenberg chain of ten sites at t = 1 after the Neel state, as a circuit of few layers.

H = sum XX + YY + ZZ in Pauli matrices, open ends. Every cell is the best of circuits of U(4) gates
that `mpodis.compile_state` finds from product formulas of random durations, with the first gate on
wire 0 or on wire 1.

    python scripts/bench/heisenberg.py --out notebooks/records/heisenberg.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from scipy.linalg import expm

import mpodis
from mpodis.files import write_atomic

SITES = 10
MODEL = {"XX": 1.0, "YY": 1.0, "ZZ": 1.0}
LAYERS = (6, 7, 8)
FORMULAS = 12
"""Product formulas from which the circuits of a cell begin."""


def formula(layers: int, first: int, rng: np.random.Generator) -> mpodis.Circuit:
    """The Neel state, and a layer after the other, whose durations add up to 1 on every bond."""
    ansatz = mpodis.brickwall(SITES, layers, parity=first, group="U")
    ((_, bond),) = mpodis.pauli_chain(2, **MODEL).items()
    durations = np.zeros(layers)
    for parity in (0, 1):
        durations[parity::2] = rng.dirichlet(np.ones(len(durations[parity::2])))
    gates = []
    for k, (layer, duration) in enumerate(zip(ansatz.layers, durations, strict=True)):
        for place in layer:
            gate = expm(-1j * duration * bond) if place.width == 2 else np.eye(2)
            if k == 0:
                flip = np.ones((1, 1))
                for wire in place.wires:
                    flip = np.kron(flip, np.eye(2)[::-1] if wire % 2 else np.eye(2))
                gate = gate @ flip
            gates.append(gate.T + 0j)  # they act on kets
    return mpodis.Circuit(ansatz, tuple(gates))


def cell(psi: np.ndarray, layers: int, first: int) -> dict:
    """Infidelities 1 - F of the circuits of one layout, ascending."""
    rng, began = np.random.default_rng([layers, first]), time.process_time()
    found = [mpodis.compile_state(psi, start=formula(layers, first, rng)) for _ in range(FORMULAS)]
    return {
        "layers": layers,
        "first wire": first,
        "infidelities": sorted(one.infidelity for one in found),
        "cpu seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON record")
    given = parser.parse_args()
    target = mpodis.evolution(mpodis.pauli_chain(SITES, **MODEL), 1.0, error=1e-12)
    psi = target.mpo.to_dense()[:, int("01" * (SITES // 2), 2)]
    cells = [cell(psi, layers, first) for layers in LAYERS for first in (0, 1)]
    rows = [
        (c["layers"], c["first wire"], c["infidelities"][0], c["infidelities"][FORMULAS // 2])
        for c in cells
    ]
    print(mpodis.Table(("layers", "first wire", "least 1 - F", "median"), rows))
    if given.out:
        record = {"version": mpodis.__version__, "cells": cells}
        write_atomic(given.out, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
