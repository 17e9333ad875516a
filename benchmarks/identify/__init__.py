"""How often the architecture of a file is recognised, on networks that libraries build anew, and on unknown ones."""
