"""The architectures that libraries build: the catalogue of them, and which one a file's tensors are."""
