"""Stored calibrations and partitions."""
