"""Image files and lists of them: decoding, caching, parsing and cleaning."""
