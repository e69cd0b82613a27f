"""A short part of what `python -m tests.hostile --long` does."""

from pathlib import Path

import pytest

from tests.hostile.commands import try_commands
from tests.hostile.damage import add_weights, try_damage
from tests.hostile.place import Tally, make_place
from tests.hostile.writes import Operation, operations, try_writes, two_networks


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_place(tmp_path_factory.mktemp("place") / "a" / "b" / "c")


def nothing(tally: Tally) -> None:
    said = "\n".join(f"{each.kind}: {each.what}: {each.said}" for each in tally.findings)
    assert not tally.findings, said


def test_bad_command_lines_are_refused_in_one_line_and_lose_nothing(place: Path) -> None:
    tally = try_commands(place, 60)
    nothing(tally)
    assert tally.refused > 30


def test_damaged_files_are_refused_and_never_differ_silently(place: Path) -> None:
    add_weights(place)
    tally = try_damage(place, 150)
    nothing(tally)
    assert tally.refused > 60


@pytest.mark.parametrize("operation", operations(*two_networks()), ids=lambda operation: operation.name)
def test_a_kill_or_a_full_disk_leaves_the_old_or_the_new(operation: Operation) -> None:
    tally = try_writes(operation, most=6)
    nothing(tally)
    assert tally.refused
