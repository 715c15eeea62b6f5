"""Sweeps -> verdict. Torch-free: a judgement can be repeated from a stored report."""
