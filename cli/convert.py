"""`routekit convert`: a pretrained ResNet in, a routed one out."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .carry_out import carry_out, go_on

EXAMPLES = """Examples:

routekit convert resnet56 --weights resnet56.th --data images --target-flops 50%

routekit convert torchvision:resnet18 --data images --target-flops 40% --epochs 4 --dry-run

routekit convert resnet56 --weights runs/dense --data images --target-flops 60% --junctions skip,exit

routekit convert my_model.py:make_net --data images --set data.input_size=64 --target-flops 50%
"""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EXAMPLES)
    def convert(
        context: typer.Context,
        model: Annotated[
            str | None,
            typer.Argument(help="resnet56, timm:NAME, torchvision:NAME, or your own: my_model.py:make_net."),
        ] = None,
        target_flops: Annotated[
            str | None,
            typer.Option(
                help="Mean cost of an image: 1.5e8, 150M or 50% of dense (1 multiply-add = 1 FLOP).",
                rich_help_panel=o.BUDGET,
            ),
        ] = None,
        adaptive_cost: Annotated[
            bool,
            typer.Option(
                "--adaptive-cost",
                help="One network for every budget, of learned decisions: choose again when evaluating. By default "
                "with --junctions skip.",
                rich_help_panel=o.BUDGET,
            ),
        ] = False,
        weights: o.Weights = None,
        data: o.Data = None,
        data_root: o.DataRoot = None,
        download: o.Download = False,
        val: o.Val = None,
        val_from_test: o.ValFromTest = None,
        junctions: Annotated[str | None, typer.Option(help=o.junction_help(), rich_help_panel=o.WHAT)] = None,
        method: Annotated[
            str | None,
            typer.Option(
                help="In place of routing, a static network: of fewer units (firstk, randomk, distributedk) or of "
                "fewer channels (l1, fpgm, bn, depgraph, random).",
                rich_help_panel=o.WHAT,
            ),
        ] = None,
        prune: Annotated[
            str | None,
            typer.Option(
                help="Prune channels before routing, by a method, to a cost: l1:70%; l1 alone: half-way to the budget; "
                "none.",
                rich_help_panel=o.WHAT,
            ),
        ] = None,
        smaller: Annotated[
            list[Path] | None,
            typer.Option(
                help="A finished run of a smaller network for the same classes, or several, the cheapest first: MODEL, "
                "pruned as by --prune l1, answers what they are not sure of (--prune none: as it is).",
                rich_help_panel=o.WHAT,
            ),
        ] = None,
        narrow: Annotated[
            str | None,
            typer.Option(
                help="The share of a unit's inner channels that its narrow form keeps: 40%; several: 20%,50%; by "
                "default what fits the budget.",
                rich_help_panel=o.METHOD,
            ),
        ] = None,
        exits: Annotated[
            str | None,
            typer.Option(
                help="Where exits lie: auto, stages, or after these units: layer2.8,layer3.4.",
                rich_help_panel=o.METHOD,
            ),
        ] = None,
        policy: Annotated[
            str | None,
            typer.Option(
                help="How exits decide. Learned: actor, pragmatic, optimistic. A fixed threshold: confidence, entropy.",
                rich_help_panel=o.METHOD,
            ),
        ] = None,
        router: Annotated[
            str | None, typer.Option(help="The units' routers: fc, cnn or rnn.", rich_help_panel=o.METHOD)
        ] = None,
        gate: Annotated[
            str | None,
            typer.Option(
                help="How units learn: benefit, soft, straight-through, gumbel or bernoulli.", rich_help_panel=o.METHOD
            ),
        ] = None,
        recipe: o.RecipeName = None,
        set_: o.Set = None,
        epochs: o.Epochs = None,
        learning_rate: o.LearningRate = None,
        seed: o.Seed = None,
        device: o.Device = None,
        out: o.Out = Path("runs"),
        name: o.Name = None,
        dry_run: o.DryRun = False,
        resume: o.Resume = None,
        force: o.Force = False,
        json: o.Json = False,
    ) -> None:
        """Convert MODEL into a routed network that costs --target-flops an image on average."""
        from routekit.errors import InputError
        from routekit.recipe import load_recipe

        o.check_device(device)
        if resume is not None:
            o.check_resumed(context)
            go_on(resume, device, json=json)
            return
        if model is None:
            raise InputError("which network? e.g. routekit convert resnet56 --target-flops 50%")
        if target_flops is None:
            raise InputError("which budget? e.g. --target-flops 50% (of the dense cost) or --target-flops 1.5e8")
        base = recipe or o.default_recipe(data)
        planned, wanted = load_recipe(base), o.junctions(junctions)
        if smaller and narrow is not None:
            raise InputError("--narrow is for forms of one network, --smaller puts another one before it")
        routers = adaptive_cost or router is not None or gate is not None
        if routers and method is None and wanted is None and {*planned.junctions} - {"again"} == {"cascade"}:
            wanted = ["skip"]  # a cascade has no routers
        making = o.made(planned, method, wanted, prune)
        chosen = load_recipe(
            base,
            {
                **o.subject(model, weights, data, data_root, download, val, val_from_test),
                "target": target_flops,
                **making,
                **o.decided(list(making.get("junctions", planned.junctions)), exits, policy, narrow, router, gate),
                **o.given(
                    {
                        "adaptive_cost": {} if adaptive_cost else None,
                        "smaller": [str(path) for path in smaller or []] or None,
                        "training.epochs": epochs,
                        "training.learning_rate": learning_rate,
                        "seed": seed,
                    }
                ),
                **o.overrides(set_),
            },
        )
        carry_out(chosen, out, name, device, force=force, dry_run=dry_run, json=json)
