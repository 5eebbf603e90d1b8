"""Sweeps for `python launch.py sweep --config=configs/ablations/NAME.py[:variant] --workdir=DIR`; docs/ablations.md."""
