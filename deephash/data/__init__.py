"""Image sets, their splits, and batches of their images."""
