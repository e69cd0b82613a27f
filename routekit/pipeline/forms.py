"""Which forms of a network a ladder has."""

from functools import cache

from routekit.backbones.unit import ModelSpec
from routekit.baselines.forms import kind_for, reach_of_form
from routekit.cost.target import OutOfReachError, parse_amount
from routekit.errors import InputError
from routekit.pipeline.reach import built
from routekit.pipeline.run_plan import Form

# How a form is made where a recipe does not say, the first that reaches the cost. Without training, only the same
# weights at a lower resolution are of use.
TRAINED, UNTRAINED = ("depgraph", "l1", "distributedk", "resolution"), ("resolution",)


def forms_of(ladder: list[str], spec: ModelSpec, whole: float, epochs: float, notes: list[str]) -> list[Form]:
    """Decide how the forms of a ladder are made.

    Args:
        ladder: The share of each form, "25%", or also how it is made: "l1:25%".
        spec: The network.
        whole: Its cost, MACs.
        epochs: How long the forms are trained.
        notes: Sentences are added on forms that the network cannot have.

    Returns:
        The forms, the cheapest first.

    Raises:
        InputError: A form has no share, or the network cannot have a form that is named with its kind.
    """
    found: list[Form] = []
    for words in ladder:
        kind, colon, share = words.rpartition(":")
        cost = parse_amount(share, whole)
        if cost >= whole:
            raise InputError(f"ladder: {words} is no smaller form: it costs what the dense network does")
        if colon:
            _check(spec, kind, cost, words)
        else:
            try:
                kind = _kind(spec, cost, TRAINED if epochs else UNTRAINED)
            except OutOfReachError as error:
                notes.append(f"no form at {words}: {error.limit}")
                continue
        found.append(Form(kind=kind, cost=cost))
    return sorted(set(found), key=lambda form: (form.cost, form.kind))


@cache
def _kind(spec: ModelSpec, cost: float, kinds: tuple[str, ...]) -> str:
    return kind_for(built(spec), cost, kinds)


@cache
def _check(spec: ModelSpec, kind: str, cost: float, words: str) -> None:
    reach_of_form(built(spec), kind).check(cost, f"ladder: {words}: ")
