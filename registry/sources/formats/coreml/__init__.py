"""Core ML: neural networks, ML programs, pipelines of them, and the packages around them."""
