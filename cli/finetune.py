"""`routekit finetune`: the dense network, fine-tuned on the data, packed as a run that `convert` starts from."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .carry_out import carry_out, go_on


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command()
    def finetune(
        context: typer.Context,
        model: Annotated[str | None, typer.Argument(help="resnet56, timm:NAME, torchvision:NAME, ...")] = None,
        weights: o.Weights = None,
        data: o.Data = None,
        data_root: o.DataRoot = None,
        download: o.Download = False,
        val: o.Val = None,
        val_from_test: o.ValFromTest = None,
        recipe: o.RecipeName = None,
        epochs: o.Epochs = None,
        learning_rate: o.LearningRate = None,
        set_: o.Set = None,
        seed: o.Seed = None,
        out: o.Out = Path("runs"),
        name: o.Name = None,
        device: o.Device = None,
        dry_run: o.DryRun = False,
        resume: o.Resume = None,
        force: o.Force = False,
        json: o.Json = False,
    ) -> None:
        """Fine-tune the dense MODEL; with --epochs 0 it is only measured and packed."""
        from routekit.errors import InputError
        from routekit.recipe import load_recipe, static

        o.check_device(device)
        if resume is not None:
            o.check_resumed(context)
            go_on(resume, device, json=json)
            return
        if model is None:
            raise InputError("which network? e.g. routekit finetune resnet56 --data path/to/images")
        base = recipe or o.default_recipe(data)
        chosen = load_recipe(
            base,
            {
                **o.subject(model, weights, data, data_root, download, val, val_from_test),
                **static("dense"),
                "training": load_recipe(base).model_dump(mode="json")["dense"],
                **o.given({"training.epochs": epochs, "training.learning_rate": learning_rate, "seed": seed}),
                **o.overrides(set_),
            },
        )
        carry_out(chosen, out, name, device, force=force, dry_run=dry_run, json=json)
