"""What is here only because of the paper: its experiments and its checkpoints."""
