"""The terms by which exits and forks learn: a network as a tree of junctions, under a policy (McGill and Perona)."""

from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

from routekit.cost.table import CostTable
from routekit.objective.terms import classification
from routekit.registry import one_of
from routekit.routing.decision import RouteTrace
from routekit.routing.policy import (
    Choice,
    Subnetwork,
    activated_l2,
    critics,
    decisiveness,
    expected_cost,
    reach_of,
    sampled,
    softly,
    utility_regression,
)


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class PolicyConfig:
    """How exits and forks learn to decide; the paper's settings (section 4.7) are those of `--recipe multipath`.

    kind:         "actor" (section 4.1), or the "pragmatic" or "optimistic" critic (4.2, 4.3)
    decisiveness: k_dec of Eq. 10, for actors (the paper's is 0.01: with few steps, they are sure before they know)
    utility:      k_ure of Eq. 6, for critics (the paper's is 0.001, for 80,000 steps from scratch)
    error:        what an answer's error is to whoever decides: its "loss", as in the paper, or 1 if it is "wrong"
    epsilon:      the share of decisions that are explored at random
    draw:         decide by sampling, as the paper does, and not by the expectation over what would be sampled
    heads:        weight of the mean loss of every classifier over all images, or of the mean over the classifiers of
                  all paths at one place: the paper has none of it
    l2:           k_L2 of Eq. 9, in place of a weight decay (`training.weight_decay`): of the layers that are activated
    l2_routes:    let that teach the policy as well, as in section 5.2 of the paper
    """

    kind: Annotated[str, one_of("policy", critics, also=["actor"])] = "pragmatic"
    decisiveness: Annotated[float, Field(ge=0)] = 0.1
    utility: Annotated[float, Field(ge=0)] = 1.0
    error: Literal["loss", "wrong"] = "wrong"
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.0
    draw: bool = False
    heads: Annotated[float, Field(ge=0)] = 0.5
    l2: Annotated[float, Field(ge=0)] = 0.0
    l2_routes: bool = False

    def choice(self, temperature: float, generator: torch.Generator | None = None) -> Choice:
        """The training routing policy (Eq. 4)."""
        soft = softly(temperature, epsilon=self.epsilon)
        return sampled(soft, generator) if self.draw else soft


def exit_tree(trace: RouteTrace, costs: CostTable, errors: list[Tensor], k_cpt: float | Tensor) -> Subnetwork:
    """Look at a network with exits, and perhaps forks, as a tree of junctions.

    At each exit an image goes on, for the cost of the section behind it, or stops, for nothing more; at each fork it
    takes the first sink or the second, which cost the same. `errors` [B] are those of each leaf, `k_cpt` the price of a
    multiply-add, or [B] one for each image. With forks, the trace is that of all images on every path
    (`Layout.every_path`), and the tree is for each image once.
    """
    layout = trace.layout
    price = k_cpt.unsqueeze(1) if isinstance(k_cpt, Tensor) else k_cpt
    # What units cost is their routers' affair: they pay by their own price, or by the cost term, and not twice.
    sections = price * costs.of_sections(trace.gates.detach())
    forks = trace.at_units if layout.forks else ()
    lies = [layout.sections[column] for column in layout.of_units]

    def on(path: int, values: Tensor) -> Tensor:
        """Of values [paths * B, ...], what the images have on one path."""
        return values.view(layout.paths, -1, *values.shape[1:])[path]

    def behind(exits: int, forked: int, path: int) -> Subnetwork:
        """What is left behind some exits and forks, on the paths that start with `path`."""
        if forked < len(forks) and lies[forked] == exits:
            second = path + (layout.paths >> (forked + 1))
            sinks = (behind(exits, forked + 1, path), behind(exits, forked + 1, second))
            scores = on(path, forks[forked].logits)
            return Subnetwork(cost=torch.zeros_like(scores[:, 0]), scores=scores, sinks=sinks)
        cost, error = on(path, sections[:, exits]), on(path, errors[exits])
        if exits == len(trace.stops):
            return Subnetwork(cost=cost, error=error)
        stop = Subnetwork(cost=torch.zeros_like(cost), error=error)
        scores = on(path, trace.stops[exits].logits)
        return Subnetwork(cost=cost, scores=scores, sinks=(behind(exits + 1, forked, path), stop))

    return behind(0, 0, 0)


def weighed(trace: RouteTrace, labels: Tensor, errors: list[Tensor], config: PolicyConfig) -> list[Tensor]:
    """Errors [B] of each leaf that weigh what decisions go by, and teach classifiers what `errors` do.

    Decisions go by cross-entropy, or by which answers are wrong. What classifiers minimise may be distilled, too: that
    says how far an answer is from the teacher's, which differs little between images that are right and wrong.
    """
    if config.error == "wrong":
        known = [(leaf.argmax(dim=1) != labels).to(leaf) for leaf in trace.leaves]
    else:
        known = [classification(leaf, labels) for leaf in trace.leaves]
    return [value.detach() + (error - error.detach()) for value, error in zip(known, errors, strict=True)]


def policy_terms(
    trace: RouteTrace,
    costs: CostTable,
    errors: list[Tensor],
    config: PolicyConfig,
    *,
    k_cpt: float | Tensor,
    choice: Choice,
    squares: Tensor | None = None,
) -> dict[str, Tensor]:
    """Name the policy's terms, batch means; their sum is L_ac (Eq. 3) or L_cr (Eq. 5), with what belongs to c_mod.

    `errors` [B] of each leaf are what answers cost (`weighed`), `squares` [parts] the squared weights of each part
    (`reach_of`).
    """
    network = exit_tree(trace, costs, errors, k_cpt)
    terms = {}
    if config.l2 > 0 and squares is not None:
        reach = reach_of(trace, choice)
        terms["l2"] = config.l2 * activated_l2(reach, squares, routes=config.l2_routes)
    if config.kind == "actor":
        terms["inference"] = expected_cost(network, choice).mean()
        if config.decisiveness > 0:
            terms["decisiveness"] = config.decisiveness * decisiveness(network, choice).mean()
        return terms

    def constant(scores: Tensor) -> Tensor:
        return choice(scores).detach()

    terms["inference"] = expected_cost(network, constant).mean()
    terms["utility"] = config.utility * utility_regression(network, constant, critics[config.kind]).mean()
    return terms
