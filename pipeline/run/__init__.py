"""A run from catalogue to published cube, and what it will cost."""
