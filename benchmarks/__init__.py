"""What is fast, and by how much: measured against a plain reference in the same run.

    python -m benchmarks [--quick] [--json FILE] [--work FOLDER]

Everything runs on synthetic recordings shaped like the paper's: 292 of 5 to 12 s for training, batches of 30.
"""
