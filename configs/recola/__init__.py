"""RECOLA from the feature sets of the AVEC challenges."""
