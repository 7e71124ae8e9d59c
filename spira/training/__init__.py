"""A resumable training run, and the device that it runs on."""
