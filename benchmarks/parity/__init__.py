"""Our networks, features and losses against reference implementations under the same weights; run by `make parity`."""
