"""Cost of questions by size of registry: searches among up to 100,000 models made of real ones, and classes."""
