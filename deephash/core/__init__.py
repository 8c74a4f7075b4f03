"""Errors, atomic file writes, seeds, ranks, collectives, and building objects from config nodes."""
