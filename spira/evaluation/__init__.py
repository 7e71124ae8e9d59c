"""Metrics with confidence intervals, shortcut probes, the gate's verdict, and the report that explains it."""
