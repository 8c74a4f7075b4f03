"""Image sets, their splits, and batches of them."""
