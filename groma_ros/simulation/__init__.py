"""Rendered tabletop scenes with ground truth and language goals."""
