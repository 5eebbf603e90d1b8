"""The experiments of docs/results.md: real corpora, for two CPU cores. `make results TRAIN=1` runs them."""
