"""SPIRA's Inference Service as a target: a process on this machine, asked over NATS."""
