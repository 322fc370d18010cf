"""A map of a published cube in the browser."""
