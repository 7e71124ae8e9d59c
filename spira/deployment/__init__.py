"""Where a model is served; every target has the same verbs: plan, apply, verify, rollback, status."""
