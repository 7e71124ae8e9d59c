"""The stages composed, and run: on this machine, or on a cluster.

training            the pipeline; compiled into ``training.yaml``
local, runs         this machine: one run, and those that continuous delivery orders
cluster             what must be known of a cluster
server, versions    a Kubeflow server, and the versions of the pipeline on it
kubeflow, failures, pods    runs there by name: found, begun, and why one failed or waits
schedules, overview what runs regularly, and what runs now
delivery            a tick of continuous delivery as a pipeline
"""
