"""A Kubeflow server, and what runs there.

settings              the cluster file
server                the connection
versions              versions of a pipeline
runner                runs by name
failures, pods        the reasons why a run failed or waits
overview              the table of runs
schedules             recurring runs
delivery              continuous delivery as a pipeline, compiled into delivery.yaml
"""
