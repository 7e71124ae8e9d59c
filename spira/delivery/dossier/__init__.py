"""A dossier of one model version for an ethics board or a regulator: what it contains, and its page."""
