"""Targets that serve a release: a local folder, KServe, SPIRA's Inference Service."""
