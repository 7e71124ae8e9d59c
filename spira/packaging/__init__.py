"""The package that is served: numpy instead of torch, with golden recordings that verify its probabilities."""
