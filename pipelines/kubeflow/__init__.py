"""A Kubeflow server: versions of the pipeline, runs, schedules, and why one failed or waits."""
