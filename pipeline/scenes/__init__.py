"""Sentinel-2 scenes: found in a catalogue, read from their files, or generated."""
