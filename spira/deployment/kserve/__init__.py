"""The KServe target: one InferenceService per model, replaced pod by pod."""
