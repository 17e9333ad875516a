"""GGUF, the format of llama.cpp: its header, the types of its blocks, and the names of its tensors."""
