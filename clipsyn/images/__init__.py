"""Where images come from: sources, decoding, splits, perturbations."""
