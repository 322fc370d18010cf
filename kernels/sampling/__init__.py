"""Diffusion sampling, the noise of the ground, spread among samples."""
