"""Demonstrations with robots in third-party simulators: `make demo-grasp`, `make demo-navigate`."""
