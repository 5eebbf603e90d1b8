"""Imported once by the fork server of `data_prep.work`, so that a worker starts in no time."""

import librosa

import data_prep.corpora
import data_prep.work  # noqa: F401

librosa.stft  # noqa: B018 - librosa loads its parts on first use, two seconds of it
