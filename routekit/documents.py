"""Documents: read whole, bounded, in UTF-8 whatever the locale. YAML without what can make a short text endless."""

import json
import stat
from pathlib import Path
from typing import Any

import yaml

from routekit.errors import InputError, first_line

# Documents are small. Whatever is larger is no document of ours.
LARGEST = 64 * 2**20


def read_file(path: Path, largest: int = LARGEST) -> bytes:
    """Read a document whole.

    Args:
        path: The file.
        largest: More bytes than this are no document.

    Returns:
        Its bytes.

    Raises:
        InputError: It is missing, no regular file, too large, or cannot be read.
    """
    try:
        found = path.stat()  # first: opening a pipe would wait for somebody to write to it
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path} is no regular file")
        if found.st_size > largest:
            raise InputError(f"{path} is larger than {largest // 2**20} MiB: it is no document of routekit")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def read_document(path: Path) -> str:
    """Read a document of text, in UTF-8 whatever the locale. Raises InputError: it cannot be read (`read_file`)."""
    try:
        return read_file(path).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8: {first_line(error)}") from error


class _Loader(yaml.SafeLoader):
    """Takes no aliases, of which a short text can make an endless document, and no key twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias (*name) in line {self.line + 1}: write out what it stands for")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key that is no word in line {key.start_mark.line + 1}")
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value} is there twice, the second time in line {key.start_mark.line + 1}")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """Read a YAML document.

    Args:
        text: The document.

    Returns:
        Its values, and its nodes, which know their lines.

    Raises:
        yaml.YAMLError: It is no YAML, has an alias, or a key twice, or is nested too deeply.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return (None if node is None else loader.construct_document(node)), node
    except (RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:  # tags that do not fit
        said = f"it is nested too deeply, a number is too long, or a value is not of its tag: {first_line(error)}"
        raise yaml.YAMLError(said) from error
    finally:
        loader.dispose()


def parse_json(text: str, path: Path) -> Any:
    """Read a JSON document.

    Args:
        text: The document.
        path: Its file, for errors.

    Returns:
        Its values.

    Raises:
        InputError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {first_line(error)}") from error


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def to_yaml(values: Any) -> str:
    """Write values as YAML, in their order, without aliases."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
