"""`routekit convert`: a pretrained ResNet in, a routed one out."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .carry_out import carry_out


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def convert(
        context: typer.Context,
        model: Annotated[str | None, typer.Argument(help="resnet56, timm:NAME, torchvision:NAME, ...")] = None,
        target_flops: Annotated[
            str | None,
            typer.Option(help="Mean cost of an image: 1.5e8, 150M or 50% of dense (1 multiply-add = 1 FLOP)."),
        ] = None,
        weights: o.Weights = None,
        data: o.Data = None,
        data_root: o.DataRoot = None,
        download: o.Download = False,
        val: o.Val = None,
        val_from_test: o.ValFromTest = None,
        method: Annotated[
            str | None,
            typer.Option(
                help="In place of routing, a static network: of fewer units (firstk, randomk, distributedk) or of "
                "fewer channels (l1, fpgm, bn, depgraph, random)."
            ),
        ] = None,
        junctions: Annotated[
            str | None,
            typer.Option(
                help="What is decided, one or several: skip (which units run), branch (which run in full and which "
                "narrow), exit (where to stop), cascade (whether a narrow form of the network will do), again "
                "(whether to look once more, at the image mirrored, if that pays on validation images). By default "
                "cascade,again; for budgets under half of the dense cost cascade, of the network pruned as by --prune "
                "l1; where you name them, only --prune prunes."
            ),
        ] = None,
        narrow: Annotated[
            str | None,
            typer.Option(
                help="The share of a unit's inner channels that its narrow form keeps: 40%; several: 20%,50%; by "
                "default what fits the budget."
            ),
        ] = None,
        exits: Annotated[
            str | None, typer.Option(help="Where exits lie: auto, stages, or after these units: layer2.8,layer3.4.")
        ] = None,
        policy: Annotated[
            str | None,
            typer.Option(
                help="How exits decide. Learned: actor, pragmatic, optimistic. A fixed threshold: confidence, entropy."
            ),
        ] = None,
        prune: Annotated[
            str | None,
            typer.Option(
                help="Prune channels before routing, by a method, to a cost: l1:70%; l1 alone: half-way to the budget; "
                "none."
            ),
        ] = None,
        smaller: Annotated[
            list[Path] | None,
            typer.Option(
                help="A finished run of a smaller network for the same classes, or several, the cheapest first: MODEL, "
                "pruned as by --prune l1, answers what they are not sure of (--prune none: as it is)."
            ),
        ] = None,
        adaptive_cost: Annotated[
            bool,
            typer.Option(
                "--adaptive-cost",
                help="One network for every budget, of learned decisions: choose again when evaluating. By default "
                "with --junctions skip.",
            ),
        ] = False,
        router: Annotated[str | None, typer.Option(help="The units' routers: fc, cnn or rnn.")] = None,
        gate: Annotated[
            str | None,
            typer.Option(help="How units learn: benefit, soft, straight-through, gumbel or bernoulli."),
        ] = None,
        recipe: o.RecipeName = None,
        epochs: o.Epochs = None,
        learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
        set_: o.Set = None,
        seed: o.Seed = None,
        out: o.Out = Path("runs"),
        name: o.Name = None,
        device: o.Device = None,
        resume: o.Resume = None,
        force: o.Force = False,
        json: o.Json = False,
    ) -> None:
        """Convert MODEL into a routed network that costs --target-flops an image on average."""
        from routekit.errors import InputError
        from routekit.pipeline.build import looking_once, settled
        from routekit.recipe import load_recipe

        o.check_device(device)
        if resume is not None:
            o.check_resumed(context)
            path, chosen = resume, None
        else:
            if model is None:
                raise InputError("which network? e.g. routekit convert resnet56 --target-flops 50%")
            if target_flops is None:
                raise InputError("which budget? e.g. --target-flops 50% (of the dense cost) or --target-flops 1.5e8")
            base = recipe or o.default_recipe(data)
            planned, wanted = load_recipe(base), o.junctions(junctions)
            if smaller and narrow is not None:
                raise InputError("--narrow is for forms of one network, --smaller puts another one before it")
            routers = adaptive_cost or router is not None or gate is not None
            if routers and method is None and wanted is None and looking_once(planned).junctions == ["cascade"]:
                wanted = ["skip"]  # a cascade has no routers
            making = o.made(method, wanted, prune)
            chosen = load_recipe(
                base,
                {
                    **o.subject(model, weights, data, data_root, download, val, val_from_test),
                    "target": target_flops,
                    **making,
                    **o.decided(making.get("junctions", planned.junctions), exits, policy, narrow, router, gate),
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
            path = out / (name or o.run_name(settled(chosen)))
        carry_out(chosen, path, device, force=force, json=json)
