"""Imported once by the fork server of `data_prep.task_runner`, so that workers start without importing anything."""

import librosa

import data_prep.command_line
import data_prep.task_runner  # noqa: F401

librosa.stft  # noqa: B018 - librosa loads its modules on first use, which takes two seconds
