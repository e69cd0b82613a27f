"""The sections of a cascade: what lies between two stops, computed without a decision."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from routekit.documents import parse_json
from routekit.errors import InputError, first_line
from routekit.formats.description import FORMAT, SECTION, Description, Section
from routekit.network.network import RoutedNetwork
from routekit.network.program import Classify, Head, Stem, Step, Stop, View
from routekit.routing.certainty import certainties

# What a section may read: images, the features at an exit, and those of a stem that ran before.
READS = ("images", "x", "shared")
# What one section gives to the next ones has this before its name.
NEXT = "next_"


@dataclass(frozen=True)
class Stretch:
    """The steps of a section.

    Attributes:
        steps: The steps, none of which decides anything.
        behind: The steps of the next section; none behind the last one.
        section: How its answer is used.
    """

    steps: Sequence[Step]
    behind: Sequence[Step]
    section: Section

    @property
    def reads(self) -> list[str]:
        """What is given to it, by name."""
        return [each for each in READS if _reads(self.steps, each)]

    @property
    def gives(self) -> list[str]:
        """What it makes for the next ones, of the same names, beside the logits."""
        kept = any(isinstance(step, Stem) and step.kept for step in self.steps)
        return [*(["x"] if _reads(self.behind, "x") else []), *(["shared"] if kept else [])]


def decides_inside(network: RoutedNetwork) -> bool:
    """Whether anything but a rule at a stop decides: units, or what has learned to stop."""
    return bool(network.junctions) or any(decider.config.rule not in certainties for decider in network.deciders)


def stretches(network: RoutedNetwork) -> list[Stretch]:
    """Divide the program of a network, in which only rules at stops decide, at its stops."""
    parts = list(_divided(network.steps))
    found = []
    for number, (steps, stop) in enumerate(parts):
        answers = [step for step in steps if isinstance(step, Classify | Head)]
        section = Section(
            number,
            combine=answers[-1].combine if isinstance(answers[-1], Head) else "replace",
            rule=stop.decider.config.rule if stop else None,
            threshold=float(stop.decider.bias) if stop else 0.0,
        )
        found.append(Stretch(steps, parts[number + 1][0] if stop else [], section))
    return found


def _divided(steps: Sequence[Step]) -> Iterator[tuple[list[Step], Stop | None]]:
    """Divide a program at its stops -> the steps of each section, and the stop behind it."""
    section: list[Step] = []
    for step in steps:
        if isinstance(step, Stop):
            yield section, step
            section = []
        else:
            section.append(step)
    yield section, None


def _reads(steps: Sequence[Step], value: str) -> bool:
    """Whether the steps of a section read a value that they do not make."""
    stems = [step for step in steps if isinstance(step, Stem)]
    if value == "x":
        return bool(steps) and not isinstance(steps[0], View | Stem)
    return any(stem.shared == (value == "shared") for stem in stems)


def to_metadata(description: Description, section: Section) -> dict[str, str]:
    """The metadata of the file of a section."""
    return {FORMAT: description.to_json("pass"), SECTION: json.dumps(asdict(section))}


def from_metadata(found: Mapping[str, str], file: Path) -> tuple[Description, Section]:
    """Read the metadata of the file of a section.

    Args:
        found: The metadata.
        file: The file, for errors.

    Returns:
        What the network is, and how the section is used.

    Raises:
        InputError: The file is not ours, damaged, of another version, or not one of passes.
    """
    description, _ = Description.from_json(found.get(FORMAT), file)
    try:
        return description, TypeAdapter(Section).validate_python(parse_json(found[SECTION], file))
    except (KeyError, ValueError) as error:
        raise InputError(f"{file} holds a damaged description: {first_line(error)}") from error
