"""Groma in PyTorch: reference numerics, training, and the source of exports."""
