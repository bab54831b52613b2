"""The explicit algorithm: objectives, sweeps, starts, polish, checkpoints."""
