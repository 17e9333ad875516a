"""Networks of one shape that differ in training: ``python -m benchmarks.training``. Shapes are at chance here."""
