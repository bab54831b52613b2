"""The explicit algorithm: objectives, starts, sweeps, polish, checkpoints."""

from mpodis.disentangle.result import Disentangled, History
from mpodis.disentangle.run import disentangle, resume

__all__ = ["Disentangled", "History", "disentangle", "resume"]
