"""Build the catalogue of architectures: ``python -m scripts.catalogue``."""
