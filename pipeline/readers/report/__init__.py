"""One HTML page about a published cube."""
