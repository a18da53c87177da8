"""Checks of the pack on a real graphics card: `python -m tests.gpu`. CONTRIBUTING.md says how to read the result."""
