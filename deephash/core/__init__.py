"""Errors, atomic files, seeds, ranks and collectives, and building what a configuration names."""
