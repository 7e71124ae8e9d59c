"""The work of the pipeline components: one file a stage, files in, files out."""
