"""Clients of a running node: for scripts, the demo, live replay and tests."""
