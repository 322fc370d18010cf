"""Chips through Ray Data: read on CPUs, super-resolved by actors, staged as one object each."""
