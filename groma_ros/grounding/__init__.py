"""Answer goals about a scene."""
