"""A plan as a PNG and as an HTML page."""
