"""The recipes of the release that the project carries: real corpora, a night of two CPU cores at most."""
