"""`routekit cascade`: networks that are done, joined so that the cheap one answers what it knows."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def cascade(
        networks: Annotated[list[Path], typer.Argument(help="Runs or compact checkpoints, the cheapest first.")],
        target_flops: Annotated[
            str, typer.Option(help="Mean cost of an image: 1.5e8, 150M or 50% of the last network, dense.")
        ],
        rule: Annotated[str, typer.Option(help="What says how sure a network is: confidence, entropy, or learned.")] = (
            "confidence"
        ),
        average: Annotated[
            bool, typer.Option("--average", help="Average the predictions of all networks that were asked.")
        ] = False,
        data: o.Data = None,
        data_root: o.DataRoot = None,
        val: o.Val = None,
        val_from_test: o.ValFromTest = None,
        seed: o.Seed = None,
        out: o.Out = Path("runs"),
        name: o.Name = None,
        device: o.Device = None,
        force: o.Force = False,
        json: o.Json = False,
    ) -> None:
        """Join NETWORKS over the same classes: each answers if it is sure, and else asks the next. Nothing is trained.

        The images are those of the last network's run, or of --data.
        """
        from routekit.errors import InputError
        from routekit.formats.checkpoint import network_folder, read_spec
        from routekit.network.deciders import IDK
        from routekit.pipeline.join import join
        from routekit.pipeline.run_folder import MARKER, RunFolder
        from routekit.recipe import DataSection
        from routekit.registry import nearest
        from routekit.routing.certainty import certainties

        from .summary import summary

        rules = [*certainties, "learned"]
        if rule not in rules:
            raise InputError(f"unknown rule {rule!r}: {nearest(rule, rules)}")
        own = data is None and (networks[-1] / MARKER).exists()
        if data is None and not own and networks[-1].exists():
            read_spec(network_folder(networks[-1]))  # what is no network is told first
            raise InputError(f"{networks[-1]} is no run with a plan: say which images with --data")
        if data is None and data_root is not None:
            raise InputError("--data-root goes with --data: a run says where its own images are")
        given = o.given({"val": val, "val_from_test": o.fraction(val_from_test)})
        section = DataSection(source=data or "digits", root=data_root, **given)
        if own:
            _, last = RunFolder.open(networks[-1])
            # Where validation images come from is said in one way: what is given takes the place of the run's own.
            section = last.data.model_copy(update={"val": None, "val_from_test": None} | given if given else {})
            # What was carved out of them was drawn by the seed of that run.
            seed = last.seed if seed is None else seed
        record = join(
            networks,
            section,
            target_flops,
            out / (name or _name(networks, target_flops)),
            o.machine(device),
            rule=IDK if rule == "learned" else rule,
            average=average,
            seed=seed or 0,
            force=force,
        )
        result(record, summary(record), as_json=json)


def _name(networks: list[Path], target: str) -> str:
    """A folder's name made of the networks' own."""
    joined = "-".join(network.resolve().name for network in networks)
    return f"{joined}-cascade-{target.replace('%', 'pct')}"
