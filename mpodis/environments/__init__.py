"""Environments of every gate and of the core, behind one small interface, see `base`."""
