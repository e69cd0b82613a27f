"""The faults of a document, setting by setting, in words."""

from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

import yaml

from routekit.junctions.kinds import junctions
from routekit.registry import nearest


def explain(errors: Sequence[Any], lines: dict[tuple[str, ...], int], root: Any) -> str:
    """Put the faults of a document into words: each with its line, unknown names with the nearest known ones.

    Args:
        errors: The errors of pydantic.
        lines: The line of each setting that is in the file, from 1.
        root: The model of the whole document.

    Returns:
        All faults in one line.
    """
    faults: dict[tuple[str, ...], list[str]] = {}
    for fault in errors:
        path = tuple(str(part) for part in fault["loc"])
        if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            faults[path] = [f"no such setting: {nearest(path[-1], _fields(root, path[:-1]))}"]
        else:  # for a setting of several types, pydantic has an error for each type
            place = path if fault["type"] == "junction" else _setting(root, path)
            faults.setdefault(place, []).append(fault["msg"])
    told = []
    for path, said in sorted(faults.items(), key=lambda each: lines.get(each[0], 0)):
        first, *others = dict.fromkeys(said)
        message = ", or ".join([first, *(each.removeprefix("Input should be ") for each in others)])
        told.append(f"{'.'.join(path)}: {message}" + (f" (line {lines[path]})" if path in lines else ""))
    return "; ".join(told)


def _setting(root: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    """The setting in which a fault is: the longest part of its path that is a setting."""
    known = 0
    while known < len(path) and path[known] in _fields(root, path[:known]):
        known += 1
    return path[:known]


def _fields(root: Any, path: tuple[str, ...]) -> list[str]:
    """The names of the settings in the section at `path`."""
    kind = root
    if path[:1] == ("junctions",):
        _, *below = path
        return list(junctions) if not below else junctions.settings_of(below[0]) if len(below) == 1 else []
    for part in path:
        found = get_type_hints(kind).get(part)
        kind = next((each for each in get_args(found) if hasattr(each, "__annotations__")), found)
    return list(get_type_hints(kind)) if hasattr(kind, "__annotations__") else []


def lines_of(node: yaml.Node | None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    """Find the line of each key of a YAML document.

    Args:
        node: The document, or a part of it.
        path: The keys above it.

    Returns:
        For the path of each key, its line, from 1.
    """
    if not isinstance(node, yaml.MappingNode):
        return {}
    found = {}
    for key, value in node.value:
        here = (*path, str(key.value))
        found[here] = key.start_mark.line + 1
        found |= lines_of(value, here)
    return found
