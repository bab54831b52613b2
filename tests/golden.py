"""Results of the searches for fixed seeds, to tell whether a search still goes the same way.

`python tests/golden.py` writes `golden.json` anew. The file that is committed was made before the
searches were put onto one loop ("activations, to the end" after it, with the loss of before);
`test_golden.py` compares. Runs are short: rounding has no time to grow.
"""

import json
from pathlib import Path

import numpy as np

import mpodis
from mpodis.sites import site_tensors

FILE = Path(__file__).with_name("golden.json")


def random_mpo(rng, n, bond, *, complex_=False):
    cores = []
    for k in range(n):
        shape = (1 if k == 0 else bond, 2, 2, 1 if k == n - 1 else bond)
        core = rng.normal(size=shape)
        cores.append(core + 1j * rng.normal(size=shape) if complex_ else core)
    return mpodis.mpo_from_tensors(cores)


def near_product(rng, n, bond, size):
    """A product operator with a weak entangled part: what truncation can follow."""
    whole = random_mpo(rng, n, 1)
    return whole.add_MPO(random_mpo(rng, n, bond - 1) * (size / 2 ** (n / 2)))


def layer(seed, rows=64, columns=64):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, columns)) * np.exp(-np.arange(rows) / 20)[:, None]
    inputs = rng.normal(size=(400, rows)) @ (rng.normal(size=(rows, rows)) / 8 + np.eye(rows))
    return matrix, inputs


def disentangled(operator, **options):
    given = {"max_sweeps": 12, "init_sweeps": 5, "init": "grown"} | options
    return run_figures(mpodis.disentangle(operator, **given))


def run_figures(run):
    return {
        "status": run.status,
        "init": run.init,
        "records": len(run.history),
        "loss": run.loss,
        "overlap": run.overlap,
        "s_avg": float(run.entropies_after.mean()),
        "gates": gate_figures(run.factorization.left, run.factorization.right),
        "core": array_figures(site_tensors(run.factorization.core)),
    }


def gate_figures(*circuits):
    return array_figures([gate for circuit in circuits for gate in circuit.gates])


def array_figures(arrays):
    """One number an array, which changes with every entry."""
    return [float((np.cos(np.arange(a.size) + 1.0) @ np.ravel(a)).real) for a in arrays]


def cases():
    """Name -> a function without arguments that returns figures."""
    rng = np.random.default_rng(1)
    small = random_mpo(rng, 4, 3)
    wide = near_product(rng, 8, 3, 0.3)
    complex_mpo = random_mpo(rng, 3, 3, complex_=True)
    matrix, inputs = layer(2)
    square = mpodis.compress(matrix, max_bond=4)
    tall, few = layer(3, 32, 10)
    rectangular = mpodis.compress(tall, max_bond=4)
    slope = np.random.default_rng(4).normal(size=(60, 64))
    sensitivity = slope.T @ slope / 60
    tied = mpodis.tie_gates(mpodis.brickwall(4, 3))
    unitary = mpodis.random_circuit(mpodis.brickwall(3, 3), seed=5)
    found = mpodis.disentangle(small, depth=2, init="grown", max_sweeps=10, init_sweeps=5)
    vector = np.random.default_rng(6).normal(size=32)

    def synthesis(**options):
        run = mpodis.synthesise(unitary, **options)
        return {
            "status": run.status,
            "n_init": run.n_init,
            "sweeps": run.sweeps,
            "overlap": run.overlap,
            "gates": gate_figures(run.circuit),
        }

    def direct(run):
        return {
            "status": run.status,
            "init": run.init,
            "sweeps": run.sweeps,
            "overlap": run.overlap,
            "gates": gate_figures(run.left, run.right),
        }

    def kraus():
        run = mpodis.kraus_ensemble(small, depth=2, rounds=2, max_sweeps=10, init_sweeps=4)
        return {"losses": [*run.first, *run.losses], "overlap": run.overlap}

    def pruned():
        front = mpodis.prune(small, found, trials=2, sweeps=4)
        return {"points": [[p.cnots, p.loss] for p in front.points]}

    def resynthesised():
        run = mpodis.resynthesise(unitary, tol=0.02, n_searches=1, rounds=1, trials=2)
        return {"cnots": run.cnots, "overlap": run.overlap, "gates": gate_figures(run.circuit)}

    def encoded():
        run = mpodis.layered_encoding(vector, 2, max_sweeps=8)
        return {"fidelity": run.fidelity, "gates": gate_figures(run.circuit)}

    def several_encoded():
        run = mpodis.brickwall_encodings(vector.reshape(2, 16), 2, max_sweeps=8)
        return {"fidelities": list(map(float, run.fidelities))}

    return {
        "grown": lambda: disentangled(small, left=3),
        "grown, 64 x 64": lambda: disentangled(square, left=4),
        "grown, perturbed": lambda: disentangled(small, left=3, n_perturbed=2),
        "grown, sixteen layers": lambda: disentangled(small, left=16, max_sweeps=6, init_sweeps=2),
        "identity": lambda: disentangled(small, left=3, init="identity"),
        "identity, chi 2": lambda: disentangled(square, left=3, init="identity", max_bond=2),
        "random": lambda: disentangled(small, left=3, init="random"),
        "entropic": lambda: disentangled(square, left=3, init="entropic", n_init=2),
        "given": lambda: disentangled(small, left=3, init=found, n_init=2),
        "fixed core": lambda: disentangled(small, left=3, core="fixed"),
        "O": lambda: disentangled(small, left=3, group="O", init="identity"),
        "U": lambda: disentangled(complex_mpo, left=3, group="U"),
        "sweeps": lambda: disentangled(small, left=3, method="sweeps"),
        "relaxation": lambda: disentangled(small, left=3, method="sweeps", relaxation=0.5),
        "lbfgs": lambda: disentangled(small, left=3, method="lbfgs", init="identity"),
        "spec": lambda: disentangled(small, left="1b + CNOT + 2b", right="2b", init="auto"),
        "wide gates": lambda: disentangled(square, left="3b + 2b", init="identity"),
        "ties": lambda: disentangled(small, left=tied, init="auto"),
        "rectangular": lambda: disentangled(rectangular, left=3),
        "float32": lambda: disentangled(square, left=2, init="identity", dtype="float32"),
        "activations": lambda: disentangled(square, left=4, objective="activations", inputs=inputs),
        "activations, rectangular": lambda: disentangled(
            rectangular, left=3, objective="activations", inputs=few, max_bond=2
        ),
        "activations, to the end": lambda: disentangled(
            rectangular,
            left=2,
            objective="activations",
            inputs=few,
            init="identity",
            tol=0.01,
            max_sweeps=200,
        ),
        "sensitivity": lambda: disentangled(
            square, left=3, objective="activations", inputs=inputs, sensitivity=sensitivity
        ),
        "overlap, inputs": lambda: disentangled(square, left=2, inputs=inputs),
        "transverse": lambda: disentangled(
            wide, left=2, engine="transverse", init="auto", n_init=2
        ),
        "tree": lambda: disentangled(wide, left=2, engine="tree", init="auto", n_init=2),
        "dense, eight wires": lambda: disentangled(wide, left=2, engine="dense", n_init=2),
        "boundary": lambda: disentangled(
            wide, left=3, engine="boundary", environment_bond=(8, 16), init="auto", n_init=2
        ),
        "synthesis": lambda: synthesis(circuit=3, n_init=3, max_sweeps=20),
        "synthesis, U": lambda: synthesis(circuit=2, group="U", n_init=3, max_sweeps=20),
        "qr": lambda: direct(mpodis.circuit_qr(tall, 3, max_sweeps=12, init_sweeps=5)),
        "svd": lambda: direct(mpodis.circuit_svd(tall, 2, max_sweeps=12, init_sweeps=5)),
        "kraus": kraus,
        "prune": pruned,
        "resynthesise": resynthesised,
        "layered encoding": encoded,
        "brickwall encodings": several_encoded,
    }


def main():
    FILE.write_text(json.dumps({name: case() for name, case in cases().items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
