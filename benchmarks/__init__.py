"""Benchmarks of speed and of retrieval quality; run from the checkout's folder by `python -m`."""
