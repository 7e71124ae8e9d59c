"""What is there now: fingerprints of data, settings and code."""
