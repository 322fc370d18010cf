"""Image quality measures and classical pansharpening."""
