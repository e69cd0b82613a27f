"""`routekit export`: a compact checkpoint that `routekit.load` needs nothing else for."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .output import result


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def export(
        run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
        out: Annotated[Path, typer.Option(help="The folder to write.")],
        format_: Annotated[str, typer.Option("--format", help="compact: JSON spec and safetensors.")] = "compact",
        dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16, of the stored tensors.")] = "float32",
        device: o.Device = None,
        force: o.Force = False,
        json: o.Json = False,
    ) -> None:
        """Write RUN's network without the units that no validation image runs, batch norms folded."""
        from routekit.errors import InputError

        if format_ != "compact":
            raise InputError(f"unknown format {format_!r}: compact")
        if dtype not in ("float32", "float16", "bfloat16"):
            raise InputError(f"unknown dtype {dtype!r}: float32, float16 or bfloat16")
        import torch

        from routekit.results import export_run

        stored = None if dtype == "float32" else getattr(torch, dtype)
        report = export_run(run, out, dtype=stored, force=force, machine=o.machine(device))
        parameters, size = report["parameters"], report["bytes"]
        text = "\n".join(
            [
                f"{report['out']}: compact form of {report['run']}, {report['dtype']}",
                f"  dropped    {', '.join(report['dropped']) or 'no unit'} (run by no validation image)",
                f"  folded     {report['folded']} batch norms",
                f"  parameters {parameters['compact']:,} of the dense network's {parameters['dense']:,}",
                f"  bytes      {size['compact']:,} instead of {size['run']:,}",
            ]
        )
        result(report, text, as_json=json)
