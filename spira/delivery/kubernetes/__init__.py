"""What Kubernetes shows of a delivery: a custom resource and its conditions."""
