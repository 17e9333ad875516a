"""The figures that the documentation quotes, measured again: ``python -m benchmarks``."""
