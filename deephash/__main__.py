"""`python -m deephash`."""

from deephash.cli.entry import app

if __name__ == "__main__":
    app()
