"""The tests: the tree of the code, helpers in ``tests.support``, a real cluster in ``tests.e2e``."""
