"""Bridges from the node's answers to robots; made to be copied and adapted."""
