"""Resumable training of one network, and the choice of its device."""
