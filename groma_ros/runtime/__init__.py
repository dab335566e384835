"""Runtimes for built models; each vendor library is used in one file only."""
