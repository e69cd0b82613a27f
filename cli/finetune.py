"""`routekit finetune`: a dense network, fine-tuned on the data, as a run that `convert` starts from."""

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from . import settings
from .carry_out import carry_out, go_on

EPILOG = """Examples:

routekit finetune resnet56 --weights resnet56.th --data images --epochs 0

routekit finetune timm:resnet18 --weights none --data images --set data.input_size=96 --name dense

routekit finetune my_model.py:make_net --data images --epochs 8
"""


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
    track: o.Track = None,
    dry_run: o.DryRun = False,
    resume: o.Resume = None,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Fine-tune the dense MODEL. With --epochs 0, it is only measured and stored as a run."""
    from routekit.errors import InputError
    from routekit.recipe import load_recipe, static

    if resume is not None:
        go_on(context, resume, device, track, json=json)
        return
    if model is None:
        raise InputError("which network? e.g. routekit finetune resnet56 --data path/to/images")
    base = recipe or settings.default_recipe(data)
    chosen = {
        **settings.subject(model, weights, data, data_root, download, val, val_from_test),
        **static("dense"),
        "training": load_recipe(base).model_dump(mode="json")["dense"],
        **settings.given({"training.epochs": epochs, "training.learning_rate": learning_rate, "seed": seed}),
        **settings.overrides(set_),
    }
    carry_out(load_recipe(base, chosen), out, name, device, track, force=force, dry_run=dry_run, json=json)
