"""Retrieval metrics, exact where items tie, and the health of codes."""
