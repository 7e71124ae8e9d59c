"""The paper's experiments, and the import of its checkpoints."""
