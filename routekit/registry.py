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
    """Suggest names for one that is unknown.

    Args:
        name: The unknown name.
        known: All names.

    Returns:
        "did you mean ...?", or the list of names if none is near.
    """
    known = sorted({*known})
    close = difflib.get_close_matches(name[:100], known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")


class Registry(Generic[T]):
    """A table that grows by decorators, so that a new entry edits no list elsewhere.

    >>> gates = Registry("gate")
    >>> @gates.register("soft")
    ... class Soft: ...
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[U], U]:
        """Enter the decorated object under `name`. Raises ValueError for a name that is in the table."""

        def enter(entry: U) -> U:
            if name in self._entries:
                raise ValueError(f"the {self.kind} {name!r} is registered already")
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """Look up a name. Raises InputError, with the nearest names, if it is unknown."""
        if name not in self._entries:
            raise InputError(f"unknown {self.kind} {name!r}: {nearest(name, self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def one_of(kind: str, *registries: Registry[Any], also: Sequence[str] = (), but: Sequence[str] = ()) -> AfterValidator:
    """Validate a setting that names something registered, now or later.

    >>> kind: Annotated[str, one_of("router", banks)] = "fc"

    Args:
        kind: What is named, for the error.
        *registries: The tables of names.
        also: Further names.
        but: Names that are not allowed.

    Returns:
        A validator for pydantic, which raises PydanticCustomError for other names.
    """

    def known(name: str) -> str:
        names = {*also}.union(*registries) - {*but}
        if name not in names:
            said = {"said": f"unknown {kind} {name!r}: {nearest(name, names)}"}
            raise PydanticCustomError("unknown_name", "{said}", said)
        return name

    return AfterValidator(known)
