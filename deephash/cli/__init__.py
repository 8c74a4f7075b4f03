"""The command line: `deephash` and `python train.py`."""
