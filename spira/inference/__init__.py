"""What computes a model, in the project and in packages: numpy and scipy only, Python 3.8 syntax, no other spira."""
