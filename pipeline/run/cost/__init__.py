"""What a run will take and cost: calibration of a machine, estimate of a plan."""
