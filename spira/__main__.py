"""``python -m spira``: the command line, see :mod:`spira.cli`."""

from spira.cli.main import app

if __name__ == "__main__":
    app()
