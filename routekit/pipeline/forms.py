"""Which forms of a network a ladder has."""

from functools import cache

from routekit.backbones.unit import ModelSpec
from routekit.baselines.forms import KINDS, kind_for, reach_of_form
from routekit.cost.target import Reach, parse_amount
from routekit.errors import InputError
from routekit.pipeline.reach import built
from routekit.pipeline.run_plan import Form

# Without training, only the same weights at a lower resolution are of use.
UNTRAINED = ("resolution",)


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
            _reach(spec, kind).check(cost, f"ladder: {words}: ")
        else:
            try:
                kinds = KINDS if epochs else UNTRAINED
                kind = kind_for(built(spec), cost, kinds, lambda _, kind: _reach(spec, kind))
            except InputError as error:
                notes.append(f"no form at {words}: {getattr(error, 'limit', error)}")
                continue
        found.append(Form(kind=kind, cost=cost))
    return sorted(set(found), key=lambda form: (form.cost, form.kind))


@cache
def _reach(spec: ModelSpec, kind: str) -> Reach:
    return reach_of_form(built(spec), kind)
