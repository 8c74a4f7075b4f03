"""One run from settings to report, sweeps of runs and searches over them."""
