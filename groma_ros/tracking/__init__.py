"""Answers carried from frame to frame."""
