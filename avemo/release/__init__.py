"""Trained runs as one small archive with a model card, and the cache from which commands take them by name.

`python launch.py release --workdir=RUN,RUN --output=FILE.zip` makes one, `--install=FILE` puts it into the cache.
"""
