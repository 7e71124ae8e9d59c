"""Helpers shared by the tests: fixtures, stand-in servers, builders of packages, ledgers and data sets."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Root folder of the repository."""
