"""A registry: named factories of one kind, of which a config or a flag chooses one."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from media.errors import unknown

Factory = TypeVar("Factory", bound=Callable)


class Registry(Generic[Factory]):
    """Maps names to factories of one kind (`fusion`, `trunk`, `corpus`).

    Usage: `FUSIONS: Registry[Callable] = Registry("fusion")`, `@FUSIONS.register("gmu")`, `FUSIONS["gmu"]`.
    An unknown name raises a `UserError` that lists the known ones.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, Factory] = {}

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Returns a decorator that registers a factory under `name`; a name can be used once."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")

        def enter(factory: Factory) -> Factory:
            self._entries[name] = factory
            return factory

        return enter

    def __getitem__(self, name: str) -> Factory:
        if name not in self._entries:
            raise unknown(self.kind, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries
