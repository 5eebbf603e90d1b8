"""The corpora that `python -m data_prep` knows, by name."""

from data_prep.corpora import aff_wild2, affectnet, crema_d, fec, fer, own, ravdess, recola, unlabelled
from media.errors import Registry

CORPORA = Registry("corpus")

for _corpus in (
    aff_wild2.AffWild2,
    affectnet.AffectNet,
    affectnet.AffectNetAutomatic,
    crema_d.CremaD,
    fec.FEC,
    fer.FER,
    fer.FERTriplets,
    fer.FERUnlabelled,
    own.Own,
    ravdess.RAVDESS,
    recola.Recola,
    unlabelled.UnlabelledFaces,
):
    CORPORA.register(_corpus.name)(_corpus)
