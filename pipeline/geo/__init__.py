"""Geometry without pixels: lattices, UTM zones, areas, shapes on the globe."""
