"""Releases: trained runs as one small archive with a model card, which others install and use by name.

`python launch.py release --workdir=RUN,RUN --output=FILE.zip` packs one, and `--install=FILE` puts it into the cache.
"""
