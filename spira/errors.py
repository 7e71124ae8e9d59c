"""What a user can mend: its message says what is wrong, where, and what to do."""


class SpiraError(ValueError):
    """Input, configuration or state that is refused; the command line prints the message and exits 2."""

    told = False
    """Whether a stage has printed the message already."""
