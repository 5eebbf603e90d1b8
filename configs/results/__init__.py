"""The experiments of docs/results.md: real corpora that two CPU cores can learn from, `make results` runs them."""
