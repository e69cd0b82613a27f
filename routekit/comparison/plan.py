"""The plan of a comparison: which cells there are, and the recipe of each. A plan grows and never shrinks."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routekit.comparison.method import DENSE, IDK, SMALLER, SYSTEMS, settings
from routekit.documents import parse_yaml, read_document, to_yaml
from routekit.errors import InputError, first_line
from routekit.files import check_folder, make_folder, write_text
from routekit.pipeline.plan import lengths_of, subject_of
from routekit.pipeline.run_folder import RunFolder
from routekit.recipe import Recipe, load_recipe

# The one setting of pruning that methods do not fix.
PRUNED_TO = "pruning.target"
# The file that every comparison has from its beginning, and its first line.
MARKER = "plan.yaml"
HEADER = "# routekit comparison, version 1\n"


@dataclass(frozen=True)
class Cell:
    """One network to be made and measured: a method at a budget with a seed. The dense network has no budget."""

    method: str
    budget: str | None
    seed: int

    @property
    def given(self) -> bool:
        """Whether it is a smaller network that the user gave."""
        return self.method.startswith(SMALLER)

    @property
    def joined(self) -> bool:
        """Whether it is a cascade of whole networks."""
        return self.method.split("+")[-1] == IDK

    @property
    def trained(self) -> bool:
        """Whether something is trained for it. Otherwise, it is made of networks that are done."""
        return self.method != IDK and not self.given

    @property
    def name(self) -> str:
        """The name of the cell's folder."""
        budget = [] if self.budget is None else [self.budget.replace("%", "pct")]
        return "-".join([self.method, *budget, f"seed{self.seed}"])


class Plan(BaseModel):
    """What is compared.

    base:     the name or path of the recipe that all methods begin with
    shared:   what the user set in it, by dotted names: network, weights, data, epochs
    methods, budgets, seeds: every combination is a cell
    smaller:  runs of smaller networks: each has a row of its own, and all of them come before the dense network in
              the cascade of whole networks ("idk")
    began_in: the folder in which it was begun, from which its paths go out
    """

    model_config = ConfigDict(extra="forbid")

    base: str
    shared: dict[str, Any]
    methods: Annotated[list[str], Field(min_length=1)]
    budgets: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[int], Field(min_length=1)]
    smaller: list[str] = []
    began_in: str = ""

    @property
    def needs(self) -> list[Path]:
        """The files and runs that the cells are made of; some of them may not exist."""
        weights = self.shared.get("model.weights") or subject_of(load_recipe(self.base))["weights"]
        return [Path(self.base), Path(weights), *map(Path, self.smaller)]

    @property
    def dense(self) -> Cell:
        """The cell of the dense network with the first seed, whether or not it is compared."""
        return Cell(DENSE, None, self.seeds[0])

    def differences(self, other: "Plan") -> list[str]:
        """List how `other` differs in what all cells share: "network resnet20, not resnet56"."""
        ours, theirs = self._shared(), other._shared()
        return [
            f"{name} {_text(ours.get(name))}, not {_text(theirs.get(name))}"
            for name in dict.fromkeys([*ours, *theirs])
            if ours.get(name) != theirs.get(name)
        ]

    def _shared(self) -> dict[str, Any]:
        """The network, images and weights of the recipe, and all that the user set, by words for people."""
        subject = subject_of(load_recipe(self.base, self.shared))
        named = ("model.name", "data.source", "model.weights")
        rest = {name: value for name, value in self.shared.items() if name not in named}
        return {**subject, "recipe": self.base, **rest, "--smaller": self.smaller}

    def extended(self, methods: Sequence[str], budgets: Sequence[str], seeds: Sequence[int]) -> "Plan":
        """Make a plan with more methods, budgets or seeds.

        Args:
            methods: More methods.
            budgets: More budgets.
            seeds: More seeds.

        Returns:
            The plan, which has all cells of this one.
        """
        more = {"methods": methods, "budgets": budgets, "seeds": seeds}
        joined = {name: list(dict.fromkeys([*getattr(self, name), *added])) for name, added in more.items()}
        return self.model_copy(update=joined)

    def cells(self) -> Iterator[Cell]:
        """List all cells. Those of the first seed come first, and fill the whole table."""
        for place, _ in enumerate(self.smaller):
            yield Cell(f"{SMALLER}{place}", None, self.seeds[0])
        for seed in self.seeds:
            if DENSE in self.methods:
                yield Cell(DENSE, None, seed)
            for budget, method in itertools.product(self.budgets, self.methods):
                # A cascade of whole networks does not depend on the seed: it is measured once.
                if method != DENSE and (method != IDK or seed == self.seeds[0]):
                    yield Cell(method, budget, seed)

    def run_of(self, cell: Cell) -> str:
        """The run of a smaller network that the user gave."""
        return self.smaller[int(cell.method.removeprefix(SMALLER))]

    def recipe(self, cell: Cell, start: Path | None = None) -> Recipe:
        """Make the recipe of a cell.

        Args:
            cell: The cell.
            start: The run of the dense network. None: there is none yet.

        Returns:
            The recipe.

        Raises:
            InputError: The settings do not go together.
        """
        values = settings(cell.method, cell.budget)
        chosen = self.shared | {"seed": cell.seed}
        # The user's setting holds for networks that are pruned before they are routed, and for no others.
        pruned_to = chosen.pop(PRUNED_TO, None)
        if values.get("pruning") and pruned_to is not None:
            values["pruning"]["target"] = pruned_to
        if start is not None:
            chosen["model.weights"] = str(start)
        if cell.joined:
            chosen["smaller"] = self.smaller
        if cell.method not in SYSTEMS:
            return load_recipe(self.base, chosen | values)
        # Its paper's training, for as many epochs and in the same batches as the others.
        return load_recipe(cell.method, chosen | lengths_of(load_recipe(self.base, chosen)) | values)


def _text(value: Any) -> str:
    """A setting's value for people. A setting that is not given is as in the recipe."""
    if isinstance(value, list):
        return ",".join(map(str, value)) or "none"
    return "as in the recipe" if value is None else str(value)


@dataclass(frozen=True)
class ComparisonFolder:
    """`plan.yaml`, the dense network's run in `start/`, and a run in `cells/` for each cell."""

    path: Path

    @property
    def start(self) -> Path:
        """The run of the dense network that all methods begin with, if the user gave none."""
        return self.path / "start"

    def of(self, cell: Cell) -> RunFolder:
        """The run of a cell, which may not exist yet."""
        return RunFolder(self.path / "cells" / cell.name)

    @staticmethod
    def holds(path: Path) -> bool:
        """Whether there is a comparison at `path`."""
        return (path / MARKER).exists()

    @classmethod
    def check_free(cls, path: Path, plan: Plan, *, force: bool) -> None:
        """Check that a new comparison can be made at `path`.

        Args:
            path: The folder.
            plan: The plan of the new comparison.
            force: Whether an old comparison there is replaced.

        Raises:
            InputError: There is a comparison, with how it differs or how to go on with it; or `check_folder` raises.
        """
        if cls.holds(path) and not force and (differences := cls.open(path)[1].differences(plan)):
            raise InputError(
                f"{path} holds another comparison ({'; '.join(differences)}): choose another folder, or start over "
                "with force=True"
            )
        check_folder(path, "comparison", force=force, needs=plan.needs)

    @classmethod
    def create(cls, path: Path, plan: Plan, *, force: bool) -> "ComparisonFolder":
        """Make the folder of a new comparison, with its plan.

        Args:
            path: The folder.
            plan: The plan.
            force: Whether an old comparison there is replaced.

        Returns:
            The folder.

        Raises:
            InputError: No comparison can be made here, as `check_free` says.
        """
        cls.check_free(path, plan, force=force)
        make_folder(path, "comparison")
        folder = cls(path)
        folder.write(plan)
        return folder

    def write(self, plan: Plan) -> None:
        """Write the plan. Raises RoutekitError if it cannot be written."""
        write_text(self.path / MARKER, HEADER + to_yaml(plan.model_dump(mode="json")))

    @classmethod
    def open(cls, path: Path) -> tuple["ComparisonFolder", Plan]:
        """Open a comparison.

        Raises InputError if there is none, or if it is damaged or of another version.
        """
        if not cls.holds(path):
            raise InputError(f"{path} is no comparison ({MARKER} is missing)")
        try:
            text = read_document(path / MARKER)
            if not text.startswith(HEADER):
                raise InputError(f"{path} was written by another version of routekit; start over with force=True")
            return cls(path), Plan.model_validate(parse_yaml(text)[0])
        except (yaml.YAMLError, ValidationError) as error:
            raise InputError(f"{path / MARKER} is damaged: {first_line(error)}") from error
