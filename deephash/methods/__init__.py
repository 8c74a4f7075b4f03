"""Hashing methods, one a file: hash head and loss, in torch alone."""
