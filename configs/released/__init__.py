"""The recipes of the release that the project carries: real corpora, an hour or two of two CPU cores each."""
