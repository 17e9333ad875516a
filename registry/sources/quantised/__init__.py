"""Weights that are stored as codes and scales: one module per library that writes them."""
