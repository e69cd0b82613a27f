"""`routekit export`: a compact checkpoint that `routekit.load` reads, or the format of another runtime."""

from pathlib import Path
from typing import Annotated, Any

from . import options as o
from .output import result

FORMATS = ("compact", "onnx", "passes", "triton", "openvino", "torch")


def export(
    run: Annotated[Path, o.saved("A finished run, or (not for compact) a compact checkpoint or hf://user/name.")],
    out: Annotated[Path, o.option("The folder to write.")],
    format_: Annotated[str, o.option(f"One of {', '.join(FORMATS)}.", None, "--format")] = "compact",
    dtype: Annotated[
        str | None, o.option("The type of a compact checkpoint's tensors: float32, float16, or bfloat16.")
    ] = None,
    native: Annotated[
        bool, o.option("onnx: faster files, for onnxruntime on CPUs of this machine's family.", None, "--native")
    ] = False,
    precision: Annotated[str, o.option("passes, triton: fp32 or int8.")] = "fp32",
    calibrate: Annotated[
        Path | None, o.option("int8: a folder of images like those to come, some hundred, such as training images.")
    ] = None,
    verify: Annotated[
        Path | None, o.option("Compare with the network on every image of this folder (not for compact).")
    ] = None,
    device: o.Device = None,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Write RUN's network for others to run.

    compact: JSON and safetensors. Units that no validation image runs are dropped, routers of units that all of them
    run too, and batch norms are folded.
    onnx, openvino: files that skip what an image does not need, one for single images, one for batches.
    passes: for cascades, one plain ONNX graph for each pass. Between two of them, a program decides what goes on.
    triton: a model repository for NVIDIA Triton: the passes, and a model that asks the next pass for what goes on.
    torch: torch.export programs, which compute everything.
    """
    from routekit.errors import InputError
    from routekit.pipeline.export import export_program, export_run

    if format_ not in FORMATS:
        raise InputError(f"unknown format {format_!r}: {', '.join(FORMATS)}")
    if dtype not in (None, "float32", "float16", "bfloat16"):
        raise InputError(f"unknown dtype {dtype!r}: float32, float16 or bfloat16")
    if native and format_ != "onnx":
        raise InputError("--native is for --format onnx")
    if precision not in ("fp32", "int8"):
        raise InputError(f"unknown precision {precision!r}: fp32 or int8")
    if precision == "int8" and format_ not in ("passes", "triton"):
        raise InputError("--precision int8 is for --format passes and --format triton")
    if (precision == "int8") != (calibrate is not None):
        raise InputError("--precision int8 and --calibrate DIR go together: features get the ranges of these images")
    if format_ == "compact":
        if verify is not None:
            raise InputError("--verify is for the other formats; measure a compact checkpoint with evaluate")
        report = export_run(run, out, dtype=dtype or "float32", force=force, machine=o.machine(device))
        text = _compact(report)
    else:
        if dtype is not None:
            raise InputError("--dtype is for the compact format; the others are written in float32")
        hooks = o.machine(device).hooks
        report = export_program(
            run, out, kind=format_, native=native, calibrate=calibrate, force=force, images=verify, hooks=hooks
        )
        text = _program(report)
    result(report, text, as_json=json)


def _compact(report: dict[str, Any]) -> str:
    parameters, size = report["parameters"], report["bytes"]
    return f"""{report["out"]}: compact form of {report["run"]}, {report["dtype"]}
  dropped    {", ".join(report["dropped"]) or "no unit"} (run by no validation image)
  settled    {", ".join(report["settled"]) or "no unit"} (run by all of them: their routers are gone)
  folded     {report["folded"]} batch norms
  parameters {parameters["compact"]:,} of the dense network's {parameters["dense"]:,}
  bytes      {size["compact"]:,} instead of {size["run"]:,}"""


def _program(report: dict[str, Any]) -> str:
    lines = [f"{report['out']}: {report['run']} as {report['format']}"]
    width = max(14, *map(len, report["files"]))
    lines += [f"  {name:<{width}} {size:>12,} bytes" for name, size in report["files"].items()]
    lines += [
        f"  {name}: {found['images']} images: same routes and classes, logits to {found['largest_difference']:.1e}"
        for name, found in report.get("verified", {}).items()
    ]
    if "agreement" in report:
        lines.append(f"  {100 * report['agreement']:.2f}% of the images get the class that the network gives")
    return "\n".join(lines)
