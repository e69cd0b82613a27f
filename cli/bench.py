"""`routekit bench`: is the routed network really faster, here?"""

from pathlib import Path
from typing import Annotated

from . import options as o
from .output import result


def bench(
    model: Annotated[
        str, o.saved("A run, a checkpoint (or hf://user/name), or a network's name and --run-rate.", o.here)
    ],
    runtime: Annotated[
        str, o.option("One or more of torch, onnx, openvino, onnx-int8, openvino-int8, with commas.")
    ] = "torch",
    batch: Annotated[str, o.option("Batch sizes, with commas.")] = "1,8,64,256",
    threads: Annotated[int | None, o.option("CPU threads. Default: all cores.", min=1)] = None,
    run_rate: Annotated[
        float | None, o.option("Set the routers so that this share of images runs each unit: 30%.", parser=o.share)
    ] = None,
    data: o.Data = None,
    data_root: o.DataRoot = None,
    images: Annotated[int, o.option("How many test images are used.", min=1)] = 1024,
    seconds: Annotated[float, o.option("About how long each comparison takes.", min=0, max=86400)] = 6.0,
    compiled: Annotated[bool, o.option("Also try torch.compile.", None, "--compile/--no-compile")] = True,
    picture: Annotated[Path | None, o.option("Write a bar chart: a .png or .svg file.")] = None,
    html: Annotated[Path | None, o.option("Write a page with tables and the chart.")] = None,
    force: o.Force = False,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """Time MODEL, dense and routed in turns, on test images with their own routes.

    For each runtime, its fastest routed form is compared with its fastest dense form. `benchmark` compares runtimes and
    precisions, by what they answer as well.
    """
    from routekit.pipeline.bench import bench_model
    from routekit.report.bench import bench_html, bench_picture, bench_text, check_drawing

    check_drawing(picture, html, force=force)
    report = bench_model(
        model,
        names=o.listed(runtime),
        batches=o.batch_sizes(batch),
        threads=threads,
        run_rate=run_rate,
        data=o.images(data, data_root),
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
