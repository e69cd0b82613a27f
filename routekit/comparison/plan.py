"""The plan of a comparison: which cells there are, and the recipe of each. One file, which grows and never shrinks."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from routekit.comparison.method import DENSE, DRN, IDK, SMALLER, check_method, settings
from routekit.errors import InputError, first_line
from routekit.files import check_folder, make_folder, write_text
from routekit.pipeline.build import settled
from routekit.pipeline.check import check
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
        weights = self.shared.get("model.weights") or load_recipe(self.base).model.weights
        return [Path(self.base), Path(weights), *map(Path, self.smaller)]

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
        recipe = load_recipe(base, chosen)
        if cell.method == DRN:  # its routers and objective, for as long and with the same schedule as the others
            ours = load_recipe(self.base, chosen).training
            chosen |= {"training.epochs": ours.epochs, "training.batch_size": ours.batch_size}
        if cell.joined:
            chosen["smaller"] = self.smaller
        target = values.pop("target")
        recipe = load_recipe(base, chosen | values)
        return recipe.model_copy(update={"target": target})

    def check(self) -> None:
        """Check every cell, all of them before the first is begun. Raises InputError that names the first at fault."""
        for method in self.methods:
            check_method(method)
        joined = next((cell.method for cell in self.cells() if cell.joined), None)
        if joined is not None and not self.smaller:
            raise InputError(
                f"method {joined} joins this network with smaller ones: begin a comparison with their runs, --smaller"
            )
        for name in self.shared:
            if name.partition(".")[0] == "pruning" and name != PRUNED_TO:
                raise InputError(f"--set {name}: methods say what is pruned, as fpgm+skip; --set {PRUNED_TO} how far")
        for path in self.smaller:
            if not RunFolder(Path(path)).finished:
                raise InputError(f"--smaller {path}: no finished run")
        for cell in self.cells():
            if cell.seed == self.seeds[0] and not cell.method.startswith(SMALLER):
                try:
                    recipe = self.recipe(cell)
                    check(recipe)
                    if recipe.pruning is not None and settled(recipe).pruning is None:
                        raise InputError("nothing is pruned for so large a budget")
                except InputError as error:
                    raise InputError(f"{cell.method} at {cell.budget}: {error}") from error


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
    def create(cls, path: Path, plan: Plan, *, force: bool) -> "ComparisonFolder":
        """Write the plan of a new comparison. Raises InputError if there can be none here, as `check_folder` says."""
        check_folder(path, "comparison", MARKER, force=force, needs=plan.needs)
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
