"""Trains the networks: super-resolution on aerial and satellite imagery, fusion on Sentinel-2 itself."""
