"""The pipeline and its runners.

training        the composition of the stages, compiled into training.yaml
catalogue       owner, stability and last check of every component
local           one run on this machine
local_runner    the runs that continuous delivery starts on this machine
kubeflow        a Kubeflow server: versions, runs, schedules, and continuous delivery as a pipeline
"""
