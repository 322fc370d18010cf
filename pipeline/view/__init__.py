"""A published cube as a map in the browser: served from this machine, drawn by MapLibre GL JS."""
