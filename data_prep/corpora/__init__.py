"""The corpora that `python -m data_prep` can prepare, by name."""

from data_prep.corpora import (
    aff_wild2,
    affectnet,
    crema_d,
    features,
    fec,
    fer,
    fer_triplets,
    own,
    ravdess,
    recola,
    unlabelled,
)
from data_prep.corpora.base import Corpus
from media.registry import Registry

CORPORA: Registry[type[Corpus]] = Registry("corpus")

for _corpus in (
    aff_wild2.AffWild2,
    affectnet.AffectNet,
    affectnet.AffectNetAutomatic,
    crema_d.CremaD,
    features.Features,
    fec.FEC,
    fer.FER,
    fer.FERUnlabelled,
    fer_triplets.FERTriplets,
    own.Own,
    ravdess.RAVDESS,
    recola.Recola,
    unlabelled.UnlabelledFaces,
):
    CORPORA.register(_corpus.name)(_corpus)
