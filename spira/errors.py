"""The base class of all errors that a user can correct."""


class SpiraError(ValueError):
    """Refused input, configuration or state. The message says what happened, where, and what to do.

    The command line prints the message and exits with code 2.
    """

    logged = False
    """Whether a stage has logged the message."""
