"""The corpora that `python -m data_prep` knows, by name."""

from avemo.errors import Registry
from data_prep.corpora import affectnet, fec, fer, own, ravdess, recola, unlabelled

CORPORA = Registry("corpus")

for _corpus in (
    affectnet.AffectNet,
    affectnet.AffectNetAutomatic,
    fec.FEC,
    fer.FER,
    fer.FERTriplets,
    own.Own,
    ravdess.RAVDESS,
    recola.Recola,
    unlabelled.UnlabelledFaces,
):
    CORPORA.register(_corpus.name)(_corpus)
