"""The explicit algorithm: objectives, starts, sweeps, polish, checkpoints."""

from mpodis.disentangler.result import Disentangled, History
from mpodis.disentangler.run import disentangle, resume

__all__ = ["Disentangled", "History", "disentangle", "resume"]
