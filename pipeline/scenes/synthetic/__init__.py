"""A generated world and the scenes that a sensor would take of it."""
