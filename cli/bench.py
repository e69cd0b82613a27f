"""`routekit bench`: is the routed network really faster, here?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .output import result


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def bench(
        model: Annotated[str, typer.Argument(help="A run, a compact checkpoint, or a network's name and --run-rate.")],
        runtime: Annotated[str, typer.Option(help="Any of torch, onnx, openvino, with commas.")] = "torch",
        batch: Annotated[str, typer.Option(help="Batch sizes, with commas.")] = "1,8,64,256",
        threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default all cores.")] = None,
        run_rate: Annotated[
            str | None, typer.Option(help="Set the routers to run each unit for this share of images: 30%.")
        ] = None,
        data: o.Data = None,
        data_root: o.DataRoot = None,
        images: Annotated[int, typer.Option(min=1, help="How many test images to time with.")] = 1024,
        seconds: Annotated[float, typer.Option(min=0, help="How long each comparison may take, roughly.")] = 6.0,
        compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Also try torch.compile.")] = True,
        picture: Annotated[Path | None, typer.Option(help="Write a bar chart: a .png or .svg file.")] = None,
        html: Annotated[Path | None, typer.Option(help="Write a page with tables and the chart.")] = None,
        device: o.Device = None,
        json: o.Json = False,
    ) -> None:
        """Time MODEL, dense and routed in turns, on test images with their own routes.

        Every runtime's fastest routed form is compared with the same runtime's fastest dense form.
        """
        from routekit.pipeline.bench import bench_model
        from routekit.report.bench import bench_html, bench_picture, bench_text, check_drawing

        check_drawing(picture, html)
        report: dict[str, Any] = bench_model(
            model,
            names=_list(runtime),
            batches=[o.whole(size, "batch size") for size in _list(batch)],
            threads=threads,
            run_rate=o.fraction(run_rate),
            data=data,
            data_root=data_root,
            images=images,
            seconds=seconds,
            compiled=compiled,
            machine=o.machine(device),
        )
        if picture is not None:
            bench_picture(report, picture)
        if html is not None:
            bench_html(report, html)
        result(report, bench_text(report), as_json=json)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
