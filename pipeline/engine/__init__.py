"""Ray: the cluster, actors, tasks, and the board that shows what each worker does."""
