"""Stored models: rows, cards, vectors, spectra and filters."""
