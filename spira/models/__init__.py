"""The networks, their checkpoints, and fast kernels for them on a CPU."""
