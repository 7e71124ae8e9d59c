"""The stages composed: ``training`` is the pipeline, ``local`` runs it on this machine."""
