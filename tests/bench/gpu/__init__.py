"""What one GPU does with this version, measured by one command: `make gpu`, or `python tests/bench/gpu`."""
