"""Stored calibrations and partitions into classes."""
