"""Imported once by the fork server of `data_prep.task_runner`, so that a worker starts in no time."""

import librosa

import data_prep.corpora
import data_prep.task_runner  # noqa: F401

librosa.stft  # noqa: B018 - librosa loads its parts on first use, two seconds of it
