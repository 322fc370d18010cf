"""The networks of both stages, and how they are executed."""
