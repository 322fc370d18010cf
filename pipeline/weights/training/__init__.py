"""Training of both networks on Ray Train."""
