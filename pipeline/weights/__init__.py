"""Weights: trained and evaluated."""
