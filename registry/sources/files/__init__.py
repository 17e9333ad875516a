"""Bytes of files: where they are, what archives hold, and tensors that are read when asked for."""
