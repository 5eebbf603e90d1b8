"""The embedded corpus: drawn faces and synthesised voices, written as real files in the real layouts.

`generate(output)` (or `python -m data_prep.synthetic --output=DIR`) makes four folders, `recola/`, `affectnet/`, `fec/`
and `unlabelled/`, which the ordinary builders read as they read the licensed corpora. Everything in them is invented.
Scores on them show whether the system works, never how well it reads people.
"""

from data_prep.synthetic.corpus import Settings, generate

__all__ = ["Settings", "generate"]
