"""Data sets, one per file. Each function returns an `ImageSet`."""
