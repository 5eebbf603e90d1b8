"""The corpora that `python -m data_prep` knows, by name."""

from avemo.errors import Registry
from data_prep.corpora import affectnet, faces, fec, fer, own, ravdess, recola

CORPORA = Registry("corpus")

for _corpus in (
    affectnet.AffectNet,
    affectnet.AffectNetAutomatic,
    faces.UnlabelledFaces,
    fec.FEC,
    fer.FER,
    fer.FERTriplets,
    own.Own,
    ravdess.RAVDESS,
    recola.Recola,
):
    CORPORA.register(_corpus.name)(_corpus)
