"""Arithmetic on tensors and arrays, with torch and NumPy alone."""
