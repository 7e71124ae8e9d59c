"""The code that travels in every package: numpy and scipy only, Python 3.8 syntax, no import of the rest of spira."""
