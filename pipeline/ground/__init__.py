"""What every room uses: errors, URLs and paths, the meaning of pixel values."""
