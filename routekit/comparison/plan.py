"""The plan of a comparison: which cells there are, and the recipe of each. One file, which grows and never shrinks."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routekit.comparison.method import DENSE, DRN, IDK, SMALLER, settings
from routekit.errors import InputError, first_line
from routekit.files import check_folder, make_folder, write_text
from routekit.pipeline.plan import lengths_of, subject_of
from routekit.pipeline.run_folder import RunFolder
from routekit.recipe import Recipe, load_recipe

VERSION = 1
# Of what pruning is, the one thing that methods do not say.
PRUNED_TO = "pruning.target"
# What every comparison has from its beginning.
MARKER = "plan.yaml"
HEADER = f"# routekit comparison, version {VERSION}\n"


@dataclass(frozen=True)
class Cell:
    """One network to be made and measured: a method at a budget with a seed; the dense network has no budget."""

    method: str
    budget: str | None
    seed: int

    @property
    def trained(self) -> bool:
        """Whether there is something to train: else the cell is made of networks that are done."""
        return self.method != IDK and not self.method.startswith(SMALLER)

    @property
    def joined(self) -> bool:
        """Whether it is a cascade of whole networks."""
        return self.method.split("+")[-1] == IDK

    @property
    def name(self) -> str:
        """The name of the cell's folder."""
        budget = [] if self.budget is None else [self.budget.replace("%", "pct")]
        return "-".join([self.method, *budget, f"seed{self.seed}"])


class Plan(BaseModel):
    """What is compared.

    base:     the name or path of the recipe that all begin with
    shared:   what the user set in it, by dotted names: network, weights, data, epochs
    methods, budgets, seeds: every combination is a cell
    smaller:  runs of smaller networks: each is a row of its own, and all of them come before the dense one in the
              cascade of whole networks ("idk")
    """

    model_config = ConfigDict(extra="forbid")

    base: str
    shared: dict[str, Any]
    methods: Annotated[list[str], Field(min_length=1)]
    budgets: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    smaller: list[str] = []

    @property
    def needs(self) -> list[Path]:
        """The files and runs that the cells are made of, if they are there."""
        weights = self.shared.get("model.weights") or subject_of(load_recipe(self.base))["weights"]
        return [Path(self.base), Path(weights), *map(Path, self.smaller)]

    def differences(self, other: "Plan") -> list[str]:
        """What `other` has otherwise, of what all cells share: "network resnet20, not resnet56"."""
        ours, theirs = self._shared(), other._shared()
        return [
            f"{name} {_said(ours.get(name))}, not {_said(theirs.get(name))}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name)
        ]

    def _shared(self) -> dict[str, Any]:
        """By words for people: what the recipe says of the network and its images, and all that the user set."""
        said: dict[str, Any] = dict(subject_of(load_recipe(self.base, self.shared)))
        told = ("model.name", "data.source", "model.weights")
        rest = {name: value for name, value in self.shared.items() if name not in told}
        return said | {"recipe": self.base} | rest | {"--smaller": self.smaller}

    def extended(self, methods: Sequence[str], budgets: Sequence[str], seeds: Sequence[int]) -> "Plan":
        """The same with more methods, budgets or seeds; what was planned stays so."""
        more = {"methods": methods, "budgets": budgets, "seeds": seeds}
        return self.model_copy(
            update={name: list(dict.fromkeys([*getattr(self, name), *added])) for name, added in more.items()}
        )

    def cells(self) -> Iterator[Cell]:
        """All cells; with the first seed alone, the whole table can be seen."""
        for place, _ in enumerate(self.smaller):
            yield Cell(f"{SMALLER}{place}", None, self.seeds[0])
        for seed in self.seeds:
            if DENSE in self.methods:
                yield Cell(DENSE, None, seed)
            for budget, method in itertools.product(self.budgets, self.methods):
                # Nothing of a cascade of whole networks depends on the seed: it is not measured twice.
                if method != DENSE and (method != IDK or seed == self.seeds[0]):
                    yield Cell(method, budget, seed)

    def recipe(self, cell: Cell, start: Path | None = None) -> Recipe:
        """The recipe of a cell. `start` is the run of the dense network, once there is one.

        Raises InputError for what does not fit together.
        """
        base = DRN if cell.method == DRN else self.base
        values = settings(cell.method, cell.budget)
        chosen = self.shared | {"seed": cell.seed}
        # How far the user wants to prune holds for what is pruned before it is routed, and for nothing else.
        left = chosen.pop(PRUNED_TO, None)
        if values.get("pruning") and left is not None:
            values["pruning"]["target"] = left
        if start is not None:
            chosen["model.weights"] = str(start)
        if cell.method == DRN:  # trained as its authors do, for as many epochs and in the same batches as the others
            chosen |= lengths_of(load_recipe(self.base, chosen))
        if cell.joined:
            chosen["smaller"] = self.smaller
        return load_recipe(base, chosen | values)


def _said(value: Any) -> str:
    """A setting's value for people; one that is not set is as the recipe says."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "as in the recipe" if value is None else str(value)


@dataclass(frozen=True)
class ComparisonFolder:
    """`plan.yaml`, the dense network's run in `start/`, and a run in `cells/` for each cell."""

    path: Path

    @property
    def start(self) -> Path:
        """The run of the dense network that all begin with, if it was not given."""
        return self.path / "start"

    def of(self, cell: Cell) -> RunFolder:
        """The run of a cell, begun or not."""
        return RunFolder(self.path / "cells" / cell.name)

    @staticmethod
    def holds(path: Path) -> bool:
        """Whether there is a comparison at `path`."""
        return (path / MARKER).exists()

    @classmethod
    def check_free(cls, path: Path, plan: Plan, *, force: bool) -> None:
        """Raise InputError if a new comparison cannot be made at `path`, as `check_folder` says.

        One that is there already can be gone on with if it compares networks of the same beginning; else it is told
        what differs.
        """
        if cls.holds(path) and not force:
            _, there = cls.open(path)
            differences = there.differences(plan)
            if differences:
                raise InputError(
                    f"{path} holds another comparison ({'; '.join(differences)}): choose another --name, or start over "
                    "with --force"
                )
        check_folder(path, "comparison", MARKER, force=force, needs=plan.needs)

    @classmethod
    def create(cls, path: Path, plan: Plan, *, force: bool) -> "ComparisonFolder":
        """Write the plan of a new comparison. Raises InputError if there can be none here, as `check_free` says."""
        cls.check_free(path, plan, force=force)
        make_folder(path, MARKER)
        folder = cls(path)
        folder.write(plan)
        return folder

    def write(self, plan: Plan) -> None:
        """Write the plan. Raises RoutekitError if it cannot be written."""
        text = HEADER + str(yaml.safe_dump(plan.model_dump(mode="json"), sort_keys=False))
        write_text(self.path / MARKER, text)

    @classmethod
    def open(cls, path: Path) -> tuple["ComparisonFolder", Plan]:
        """Open a comparison. Raises InputError: none, damaged, or of another version."""
        file = path / MARKER
        if not cls.holds(path):
            raise InputError(f"{path} is no comparison (plan.yaml is missing)")
        try:
            text = file.read_text()
            if not text.startswith(HEADER):
                raise InputError(f"{path} was written by another version of routekit; start over with --force")
            return cls(path), Plan.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValidationError, UnicodeDecodeError) as error:
            raise InputError(f"{file} is damaged: {first_line(error)}") from error
