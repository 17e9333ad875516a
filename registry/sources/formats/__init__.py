"""Readers of file formats: each turns a file into named tensors in torch's layout."""
