"""Demonstrations that move robots of other people's simulators: `make demo-grasp`, `make demo-navigate`."""
