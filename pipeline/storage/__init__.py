"""Objects in any store, the folders of a run, the lease of its driver."""
