"""`routekit cascade`: finished networks, joined so that a cheap one answers the images of which it is sure."""

from pathlib import Path
from typing import Annotated

from . import options as o
from . import settings
from .output import result


def cascade(
    networks: Annotated[list[Path], o.saved("Runs, compact checkpoints or hf://user/name, the cheapest first.")],
    target_flops: Annotated[str, o.option("Mean cost of an image: 1.5e8, 150M, or 50% of the last network, dense.")],
    rule: Annotated[str, o.option("How certain an answer is: confidence, entropy, or learned.")] = "confidence",
    average: Annotated[
        bool, o.option("Answer with the mean of the predictions of all networks that ran.", None, "--average")
    ] = False,
    data: o.Data = None,
    data_root: o.DataRoot = None,
    val: o.Val = None,
    val_from_test: o.ValFromTest = None,
    seed: o.Seed = None,
    out: o.Out = Path("runs"),
    name: o.Name = None,
    device: o.Device = None,
    force: o.Force = False,
    json: o.Json = False,
) -> None:
    """Join NETWORKS for the same classes: each answers if it is sure, and else the next one runs. Nothing is trained.

    The images are those of the last network's run, or those of --data.
    """
    from routekit.errors import InputError
    from routekit.formats.checkpoint import read_about
    from routekit.network.deciders import IDK
    from routekit.pipeline.join import join
    from routekit.pipeline.run_folder import images_for, plan_at
    from routekit.registry import nearest
    from routekit.routing.certainty import certainties

    from .summary import summary

    rules = [*certainties, "learned"]
    if rule not in rules:
        raise InputError(f"unknown rule {rule!r}: {nearest(rule, rules)}")
    last = networks[-1]
    read_about(last)  # a path without a network is the first error
    section = images_for(last, o.images(data, data_root))
    # Validation images have one origin: the options replace the run's own.
    given = settings.given({"val": val, "val_from_test": val_from_test})
    if given:
        section = section.model_copy(update={"val": None, "val_from_test": None} | given)
    if seed is None and data is None and (plan := plan_at(last)) is not None:
        seed = plan.seed  # it drew the validation images of that run
    joined = "-".join(network.resolve().name for network in networks)
    record = join(
        networks,
        section,
        target_flops,
        out / (name or f"{joined}-cascade-{target_flops.replace('%', 'pct')}"),
        o.machine(device),
        rule=IDK if rule == "learned" else rule,
        average=average,
        seed=seed or 0,
        force=force,
    )
    result(record, summary(record), as_json=json)
