"""Fusion networks: three generations, one frame."""
