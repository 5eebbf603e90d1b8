"""avemo: audio-visual emotion recognition in JAX/Flax (after arXiv 2103.09154).

Importing this package imports no accelerator code.
"""

from avemo.version import __version__ as __version__


def load(folder):
    """Opens a run folder or a zip file of one, local or gs://, or a released run by its name, for reading.

    Returns an `avemo.analysis.AnalysisRun`. Needs no flags, no accelerator, and no data for what predictions and
    weights give.

    Raises:
      UserError: it is not a run folder, or one of its files is broken.
    """
    from avemo import analysis

    return analysis.load(folder)
