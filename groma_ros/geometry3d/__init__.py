"""Oriented boxes and approach poses from image boxes and depth."""
