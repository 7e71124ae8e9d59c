"""KServe as a target: an InferenceService a model, replaced pod by pod."""
