"""How good are weights: metrics against baselines, as a table, JSON and a page."""
