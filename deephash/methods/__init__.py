"""Hashing methods: a hash head and its loss. `base` has the contract; each method has one file."""
