"""A registry returns what was registered and names what it knows."""

import pytest

from media.errors import UserError
from media.registry import Registry


def test_registry_names_what_it_knows():
    registry: Registry = Registry("fusion")
    registry.register("gated")(dict)
    assert registry["gated"] is dict
    with pytest.raises(UserError, match=r"unknown fusion 'gatd'; did you mean 'gated'\? Known: gated\."):
        registry["gatd"]


def test_a_name_can_be_used_once():
    registry: Registry = Registry("fusion")
    registry.register("gated")(dict)
    with pytest.raises(ValueError, match="'gated' is registered twice"):
        registry.register("gated")
    assert list(registry) == ["gated"]
    assert "gatd" not in registry
