"""Deep hashing for image search: train, evaluate and report binary image codes."""
