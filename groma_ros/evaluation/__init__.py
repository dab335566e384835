"""Accuracy measured against ground truth."""
