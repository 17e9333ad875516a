"""Audit measured: findings in published models, judged by hand, and faults planted in them and in small networks."""
