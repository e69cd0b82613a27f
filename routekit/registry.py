"""Name -> object, with errors that suggest the nearest names."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from routekit.errors import InputError

T = TypeVar("T")
U = TypeVar("U")


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which of the `known` names the user may have meant: a sentence, or the whole list if none is near."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")


class Registry(Generic[T]):
    """A table that grows by decorators, so that adding a thing edits no list elsewhere.

    >>> gates = Registry("gate")
    >>> @gates.register("soft")
    ... class Soft: ...
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[U], U]:
        """Enter the decorated object under `name`; a name can be taken once."""

        def enter(entry: U) -> U:
            if name in self._entries:
                raise ValueError(f"the {self.kind} {name!r} is registered already")
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """Look `name` up; raises InputError that suggests the nearest names."""
        if name not in self._entries:
            raise InputError(f"unknown {self.kind} {name!r}: {nearest(name, self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def one_of(kind: str, *registries: Registry[Any], also: Sequence[str] = (), but: Sequence[str] = ()) -> AfterValidator:
    """Validate a setting that names something registered, now or later, or one of `also`; not one of `but`.

    >>> kind: Annotated[str, one_of("router", banks)] = "fc"
    """

    def known(name: str) -> str:
        names = {*also, *(entry for registry in registries for entry in registry)} - {*but}
        if name not in names:
            said = {"said": f"unknown {kind} {name!r}: {nearest(name, names)}"}
            raise PydanticCustomError("unknown_name", "{said}", said)
        return name

    return AfterValidator(known)
