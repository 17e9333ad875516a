"""Networks of one topology that differ in training: ``python -m benchmarks.training``. Shapes do not help here."""
