"""`routekit convert`: from a pretrained ResNet to a routed one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from . import settings
from .carry_out import carry_out, go_on

EPILOG = """Examples:

routekit convert resnet56 --weights resnet56.th --data images --target-flops 50%

routekit convert torchvision:resnet18 --data images --target-flops 40% --epochs 4 --dry-run

routekit convert torchvision:resnet18 --weights runs/dense --data images --target-speedup 4

routekit convert timm:resnet50 --data images --max-drop 0.5 --runtime openvino

routekit convert resnet56 --weights runs/dense --data images --target-flops 60% --junctions skip,exit

routekit convert my_model.py:make_net --data images --set data.input_size=64 --target-flops 50%
"""


def convert(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="resnet56, timm:NAME, torchvision:NAME, or your own: my_model.py:make_net.")
    ] = None,
    target_flops: Annotated[
        str | None, o.option("Mean cost of an image: 1.5e8, 150M, or 50% of dense (1 multiply-add = 1 FLOP).", o.BUDGET)
    ] = None,
    adaptive_cost: Annotated[
        bool,
        o.option(
            "Train one network for every budget, which `evaluate --target-flops` sets. It needs decisions that learn; "
            "default: --junctions skip.",
            o.BUDGET,
            "--adaptive-cost",
        ),
    ] = False,
    target_ms: o.TargetMs = None,
    target_speedup: o.TargetSpeedup = None,
    max_drop: o.MaxDrop = None,
    max_size: o.MaxSize = None,
    runtime: o.Runtime = None,
    precision: o.Precision = None,
    batch: o.Batch = None,
    threads: o.Threads = None,
    weights: o.Weights = None,
    data: o.Data = None,
    data_root: o.DataRoot = None,
    download: o.Download = False,
    val: o.Val = None,
    val_from_test: o.ValFromTest = None,
    junctions: Annotated[str | None, o.option(o.junction_help(), o.WHAT)] = None,
    method: Annotated[
        str | None,
        o.option(
            "Make a static network, not a routed one: with fewer units (firstk, randomk, distributedk) or fewer "
            "channels (l1, fpgm, bn, depgraph, random). Or a ladder of forms, which a time asks for: ladder.",
            o.WHAT,
        ),
    ] = None,
    forms: Annotated[
        str | None,
        o.option("The forms of a ladder, beside the dense network: 50%,25%,12%,6%, or l1:25%, resolution:40%.", o.WHAT),
    ] = None,
    prune: Annotated[
        str | None,
        o.option("Prune channels before routing: l1:70% (method and cost), l1 (half-way to the budget), none.", o.WHAT),
    ] = None,
    smaller: Annotated[
        list[Path] | None,
        o.option(
            "A finished run of a smaller network for the same classes; several: the cheapest first. MODEL runs if they "
            "are not sure. It is pruned as by --prune l1 (not with --prune none).",
            o.WHAT,
        ),
    ] = None,
    narrow: Annotated[
        str | None,
        o.option(
            "The share of a unit's inner channels in its narrow form: 40%; several: 20%,50%. Default: by the budget.",
            o.METHOD,
        ),
    ] = None,
    exits: Annotated[
        str | None, o.option("Where exits are: auto, stages, or after these units: layer2.8,layer3.4.", o.METHOD)
    ] = None,
    policy: Annotated[
        str | None,
        o.option(
            "How exits decide. Learned: actor, pragmatic, optimistic; by threshold: confidence, entropy", o.METHOD
        ),
    ] = None,
    router: Annotated[str | None, o.option("The routers of units: fc, cnn, or rnn.", o.METHOD)] = None,
    gate: Annotated[
        str | None, o.option("How units learn: benefit, soft, straight-through, gumbel, or bernoulli.", o.METHOD)
    ] = None,
    recipe: o.RecipeName = None,
    set_: o.Set = None,
    epochs: o.Epochs = None,
    learning_rate: o.LearningRate = None,
    seed: o.Seed = None,
    device: o.Device = None,
    track: o.Track = None,
    out: o.Out = Path("runs"),
    name: o.Name = None,
    dry_run: o.DryRun = False,
    resume: o.Resume = None,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Convert MODEL into a routed network: an image costs --target-flops, or takes --target-ms, on average."""
    from routekit.errors import InputError
    from routekit.recipe import load_recipe

    if resume is not None:
        go_on(context, resume, device, track, json=json)
        return
    if model is None:
        raise InputError("which network? e.g. routekit convert resnet56 --target-flops 50%")
    aim = settings.aim(target_ms, target_speedup, max_drop, max_size, runtime, precision, batch, threads)
    if target_flops is None and not {*aim} & settings.WANTS and recipe is None:
        raise InputError(
            "which budget? e.g. --target-flops 50% (of the dense cost) or --target-flops 1.5e8, --target-ms 1.5, "
            "--target-speedup 4, --max-drop 1; `routekit auto` says what is reachable"
        )
    base = recipe or settings.default_recipe(data)
    planned, wanted = load_recipe(base), settings.junctions(junctions)
    if smaller and narrow is not None:
        raise InputError("--narrow is for forms of one network, --smaller puts another one before it")
    routers = adaptive_cost or router is not None or gate is not None
    if routers and method is None and wanted is None and {*planned.junctions} - {"again"} == {"cascade"}:
        wanted = ["skip"]  # a cascade has no routers
    if method is None and planned.method != "ladder" and ({*aim} & settings.WANTS or forms):
        method = "ladder"
    if forms and method not in (None, "ladder"):
        raise InputError(f"--forms is for a ladder: not with --method {method}")
    making = settings.made(planned, method, wanted, prune)
    options: dict[str, Any] = {
        "adaptive_cost": {} if adaptive_cost else None,
        "smaller": [str(path) for path in smaller or []] or None,
        "ladder": o.listed(forms) or None,
        "training.learning_rate": learning_rate,
        "seed": seed,
    }
    chosen = {
        **settings.subject(model, weights, data, data_root, download, val, val_from_test),
        # What is asked for takes the place of what the recipe asks for.
        **({"target": target_flops} if target_flops is not None or {*aim} & settings.WANTS else {}),
        **aim,
        **making,
        **settings.decided(list(making.get("junctions", planned.junctions)), exits, policy, narrow, router, gate),
        **settings.given(options),
        **settings.lengths(epochs, planned.dense.epochs),
        **settings.overrides(set_),
    }
    carry_out(load_recipe(base, chosen), out, name, device, track, force=force, dry_run=dry_run, json=json)
