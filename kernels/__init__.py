"""Arithmetic on tensors: networks, diffusion, noise, blending, degradation, metrics. Torch and NumPy alone."""
