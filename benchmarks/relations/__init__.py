"""Relations by weight sketches against the exact cosines of weights, and among strangers."""
