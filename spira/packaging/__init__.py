"""The package that is served: without torch, with golden recordings that prove it answers as torch does."""
