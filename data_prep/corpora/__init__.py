"""The corpora that `python -m data_prep` knows, by name."""

from avemo.errors import Registry
from data_prep.corpora import affectnet, fec, recola

CORPORA = Registry("corpus")

for _corpus in (
    affectnet.AffectNet,
    affectnet.AffectNetAutomatic,
    fec.FEC,
    recola.Recola,
):
    CORPORA.register(_corpus.name)(_corpus)
