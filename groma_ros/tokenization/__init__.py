"""Groma's tokens and prompts."""
