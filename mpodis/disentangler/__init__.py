"""The explicit algorithm: objectives, starts, sweeps, polish, checkpoints."""

from mpodis.disentangler.kraus import KrausEnsemble, kraus_ensemble
from mpodis.disentangler.result import Disentangled, History
from mpodis.disentangler.run import disentangle, resume
from mpodis.disentangler.synthesis import Synthesis, synthesise

__all__ = [
    "Disentangled",
    "History",
    "KrausEnsemble",
    "Synthesis",
    "disentangle",
    "kraus_ensemble",
    "resume",
    "synthesise",
]
