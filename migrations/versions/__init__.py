"""Revisions, one file each, named ``vNNNN_what.py``."""
