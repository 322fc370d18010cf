"""Everything that reads a published cube: verify, export, STAC, report, view."""
