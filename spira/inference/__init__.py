"""What is served: numpy and scipy only, Python 3.8 syntax, imports nothing of spira."""
