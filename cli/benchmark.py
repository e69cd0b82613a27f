"""`routekit benchmark`: what each runtime and precision makes of a run, and which one to ship."""

from pathlib import Path
from typing import Annotated

from . import options as o
from .output import result


def benchmark(
    run: Annotated[Path, o.saved("A finished run, or a checkpoint and --data.")],
    data: o.Data = None,
    data_root: o.DataRoot = None,
    batch: Annotated[str, o.option("Batch sizes, with commas.")] = "1,64",
    threads: o.Threads = None,
    images: Annotated[int | None, o.option("How many test images are answered. Default: all.", min=1)] = None,
    seconds: Annotated[float, o.option("About how long each row is timed at each batch size.", min=0, max=86400)] = 4.0,
    only: Annotated[str | None, o.option("Some of torch, compile, aot, onnx, openvino, with commas.")] = None,
    html: Annotated[Path | None, o.option("Write a page with the table.")] = None,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Measure RUN in every runtime and precision, routed and dense, on this CPU: accuracy, size and time.

    Files are made as they are shipped, and answer the test images themselves. By validation images, it says which to
    ship. `bench` compares the forms of a network within a runtime instead, also by its costs, and takes networks by
    name.
    torch: eager, its fast form. compile: torch.compile. aot: AOTInductor. These are in fp32 and bf16; onnx and openvino
    are in fp32 and int8.
    """
    from routekit.files import check_file
    from routekit.pipeline.benchmark import benchmark_run
    from routekit.report.benchmark import benchmark_html, benchmark_text

    if html is not None:
        check_file(html, force=force)
    report = benchmark_run(
        run,
        names=o.listed(only),
        batches=o.batch_sizes(batch),
        threads=threads,
        data=o.images(data, data_root),
        images=images,
        seconds=seconds,
        machine=o.machine("cpu"),
    )
    if html is not None:
        benchmark_html(report, html)
    result(report, benchmark_text(report), as_json=json)
