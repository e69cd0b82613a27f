"""`routekit evaluate`: measure a run, or a compact checkpoint, on the test set."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def evaluate(
        run: Annotated[Path, typer.Argument(help="A run's folder, or a compact checkpoint.")],
        data: o.Data = None,
        data_root: o.DataRoot = None,
        val: o.Val = None,
        val_from_test: o.ValFromTest = None,
        target_flops: Annotated[
            str | None,
            typer.Option(
                help="Budgets for an adaptive network, a cascade, or exits alone, met on validation images: 30%,50%."
            ),
        ] = None,
        keep: Annotated[
            Path | None, typer.Option(help="Write the network, set for the one --target-flops, as a run of its own.")
        ] = None,
        policy: Annotated[
            str | None,
            typer.Option(help="Let exits decide by confidence or entropy, and not by what they learned."),
        ] = None,
        device: o.Device = None,
        json: o.Json = False,
    ) -> None:
        """Measure RUN on its test images under hard routing: accuracy, realised cost, routes."""
        from routekit.errors import InputError
        from routekit.pipeline.measure import evaluate_curve, evaluate_run
        from routekit.pipeline.run_folder import MARKER
        from routekit.recipe import DataSection
        from routekit.registry import nearest
        from routekit.routing.certainty import certainties

        from .summary import summary

        own = (run / MARKER).exists()
        if data is None and any(option is not None for option in (data_root, val, val_from_test)):
            raise InputError("--data-root, --val and --val-from-test go with --data: a run has its own images")
        if not run.exists():
            raise InputError(f"{run} does not exist")
        section = None
        if data is not None:
            section = DataSection(source=data, root=data_root, val=val, val_from_test=o.fraction(val_from_test))
        if keep is not None and not own:
            raise InputError(f"--keep writes a run, as it was made but for its budget, and {run} does not say how")
        if keep is not None and target_flops is None:
            raise InputError("--keep is for a network that is set for a budget: add --target-flops")
        if policy is not None and policy not in certainties:
            raise InputError(f"{policy!r} is no rule that exits can follow untrained: {nearest(policy, certainties)}")
        if policy is not None and target_flops is None:
            raise InputError("--policy sets a threshold that meets a budget: add --target-flops")
        if target_flops is None:
            record = evaluate_run(run, section, o.machine(device))
            result(record, summary(record), as_json=json)
            return
        targets = [text.strip() for text in target_flops.split(",")]
        records = evaluate_curve(run, section, o.machine(device), targets, keep, rule=policy)
        result({"curve": records}, "\n".join(map(summary, records)), as_json=json)
