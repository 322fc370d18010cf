"""Arithmetic on tensors: networks, diffusion, noise, blending, degradation, metrics. Needs torch and NumPy only."""
