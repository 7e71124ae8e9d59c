"""The target for SPIRA's Inference Service: a process on this machine that answers over NATS."""
