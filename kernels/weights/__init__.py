"""Shipped weights as safetensors, with their sha256 in ``index.json``."""
