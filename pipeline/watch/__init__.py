"""How a run is watched: metrics, log, progress."""
