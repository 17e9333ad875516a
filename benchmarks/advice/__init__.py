"""What the advice of `compress` and `select` costs: ``python -m benchmarks.advice``, on networks with known scores."""
