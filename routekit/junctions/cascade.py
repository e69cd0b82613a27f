"""Cascade junctions: forms of the network answer first; an image that they are not sure of goes on to the next pass."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from routekit.backbones.unit import Backbone
from routekit.junctions.junction import Draft, Junction, junctions
from routekit.network.deciders import DeciderConfig, Rule, build_decider
from routekit.network.forms import narrow_for, narrow_form, shallow
from routekit.network.heads import places
from routekit.network.pricing import AUTO
from routekit.network.program import Head, Stem, Step, Stop, Units

Share = Annotated[float, Field(gt=0, le=1)]


@junctions.register("cascade")
@settings(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Cascade(DeciderConfig, Junction):
    """A cascade of a network with itself ("I Don't Know" cascades, Wang et al., 2018).

    Attributes:
        width: The share of the inner channels of the narrow form, or of several, the narrowest first. "auto" is one
            that fits the budget.
        depth: The share of each stage's units that a form has. Few make it fast, where time goes by layers.
        own: Whether forms have weights of their own. They are more accurate then, and the network can stay as it is.
        rule, hidden, features: What decides: see `DeciderConfig`.
    """

    about: ClassVar[str] = "whether a narrow form of the network will do"
    cheapest: ClassVar[str] = "the narrow form alone"
    rank: ClassVar[int] = 2
    learns: ClassVar[str] = "added"

    rule: Rule = "confidence"
    width: Share | tuple[Share, ...] | Literal["auto"] = AUTO
    depth: Share = 1.0
    own: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError for forms out of order."""
        if self.width == () or list(self.widths) != sorted(set(self.widths)):
            raise ValueError("the narrow forms of a cascade go from the narrowest to the widest: width: [0.2, 0.5]")

    @property
    def widths(self) -> tuple[float, ...]:
        """The width of each form; none where it is "auto"."""
        if isinstance(self.width, tuple):
            return self.width
        return () if isinstance(self.width, str) else (self.width,)

    def sized(self, budget: float, view: Backbone) -> "Cascade":
        """Choose a width that fits the budget, where it is "auto"."""
        if self.width != AUTO:
            return self
        units = view.computing
        deep = len(shallow(units, self.depth)) / len(units)
        return replace(self, width=min(1.0, round(narrow_for(budget) / deep, 2)))

    def attach(self, draft: Draft) -> None:
        """Put a pass before the network's own for each form. Raises InputError for blocks without a narrow form."""
        view = draft.view
        before: list[Step] = []
        for number, width in enumerate(self.widths):
            form = narrow_form(view, width, self.depth, own=self.own)
            decider = build_decider(places(form)[-1], self, priced=draft.priced)
            name = "narrow" if number == 0 else f"narrow.{number}"
            units = Units(form, form.units, prefix=f"{name}/")
            before += [units, Head(form), Stop(decider, name), Stem(view, shared=True)]
        # Behind the first view and stem, which all of them share.
        draft.steps[2:2] = before
