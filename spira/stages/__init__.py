"""What the pipeline's components call: one file a stage, files in, files out."""
