"""Publishing: readers see a new state at once, and a rollback takes it back."""
