"""The Zarr cube: layout, metadata, store, windows of pixels."""
