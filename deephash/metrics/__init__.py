"""Retrieval metrics that are exact when items tie, and statistics of the codes themselves."""
