"""Replaces Cloud Storage by a store in memory."""

import importlib

import pytest
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """Holds in memory what gcsfs would open."""

    protocol = ("gs", "gcs")
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + str(path).partition("://")[2 if "://" in str(path) else 0].strip("/")


def install(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Serves `gs://` addresses from memory for the time of a test."""
    for protocol in Bucket.protocol:
        monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, protocol, Bucket)
    return Bucket()
