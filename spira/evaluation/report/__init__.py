"""What a reader sees of an evaluation: the HTML report, its figures and tables, texts for MLflow, the model card."""
