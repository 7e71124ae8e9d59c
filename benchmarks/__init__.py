"""Benchmarks: speed and memory, compared with a plain reference implementation in the same run.

    python -m benchmarks [--quick] [--json FILE] [--work FOLDER]

All benchmarks use synthetic recordings with the sizes of the paper: 292 of 5 to 12 s for training, batches of 30.
"""
