"""The experiments of docs/results.md: real corpora, small enough for two CPU cores. `make results` runs them."""
