"""The terms by which exits and forks learn: a network as a tree of junctions, under a policy (McGill and Perona)."""

from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings
from torch import Tensor

import routekit.routing.policy as policy
from routekit.cost.table import CostTable
from routekit.objective.terms import classification
from routekit.registry import one_of
from routekit.routing.decision import RouteTrace
from routekit.routing.policy import Choice, Junction, Leaf, Subnetwork


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class PolicyConfig:
    """How exits and forks learn to decide. The recipe multipath has the paper's settings (section 4.7).

    Attributes:
        kind: "actor" (section 4.1), or the "pragmatic" or "optimistic" critic (sections 4.2 and 4.3).
        decisiveness: k_dec of Eq. 10, for actors. The paper's is 0.01. With few training steps, that is too little to
            keep an actor exploring.
        utility: k_ure of Eq. 6, for critics. The paper's is 0.001, for 80,000 steps from scratch.
        error: c_err, by which decisions are learned: the "loss" of an answer, as in the paper, or 1 if it is "wrong".
        epsilon: The share of decisions that are explored at random.
        draw: Decide by sampling, as the paper says that critics can (section 5.1), and not by the expectation over the
            samples, as the authors' code does.
        heads: The weight of the mean loss of each classifier over all images. Classifiers of several paths at one place
            count as one. The paper has no such term.
        l2: k_L2 of Eq. 9: the decay of the weights that are activated, in place of `training.weight_decay`.
        l2_routes: Let that teach the policy, too, as in section 5.2 of the paper.
    """

    kind: Annotated[str, one_of("policy", policy.critics, also=["actor"])] = "pragmatic"
    decisiveness: Annotated[float, Field(ge=0)] = 0.1
    utility: Annotated[float, Field(ge=0)] = 1.0
    error: Literal["loss", "wrong"] = "wrong"
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.0
    draw: bool = False
    heads: Annotated[float, Field(ge=0)] = 0.5
    l2: Annotated[float, Field(ge=0)] = 0.0
    l2_routes: bool = False

    def choice(self, temperature: float, generator: torch.Generator | None = None) -> Choice:
        """Build the training routing policy (Eq. 4).

        Args:
            temperature: tau.
            generator: Of the draws, if the policy draws.

        Returns:
            The policy.
        """
        soft = policy.softly(temperature, epsilon=self.epsilon)
        return policy.sampled(soft, generator) if self.draw else soft


def exit_tree(trace: RouteTrace, costs: CostTable, errors: list[Tensor], k_cpt: float | Tensor) -> Subnetwork:
    """Build the tree of junctions of a network with exits, and perhaps forks.

    At each exit an image goes on, for the cost of the section behind it, or stops, for nothing more. At each fork it
    takes one of two sinks, which cost the same.

    Args:
        trace: With forks, that of all images on every path (`Layout.every_path`).
        costs: The cost table.
        errors: `[B]`, c_err of each leaf.
        k_cpt: The price of a unit of cost; `[B]` for a price for each image.

    Returns:
        The tree, in which each image is once.
    """
    layout = trace.layout
    price = k_cpt.unsqueeze(1) if isinstance(k_cpt, Tensor) else k_cpt
    # Units do not count here: their routers pay by their own price, or by the cost term.
    sections = price * costs.of_sections(trace.gates.detach())
    is_fork = [*layout.partings, False]

    def on(path: int, values: Tensor) -> Tensor:
        """Values `[paths * B, ...]` -> those of the images on one path `[B, ...]`."""
        return values.view(layout.paths, -1, *values.shape[1:])[path]

    def behind(exits: int, forks: int, path: int) -> Subnetwork:
        """Build the tree behind some exits and forks, on the paths that begin with `path`."""
        if is_fork[exits + forks]:
            second = path + (layout.paths >> (forks + 1))
            sinks = (behind(exits, forks + 1, path), behind(exits, forks + 1, second))
            scores = on(path, trace.at_units[forks].logits)
            return Junction(torch.zeros_like(scores[:, 0]), scores, sinks)
        cost, error = on(path, sections[:, exits]), on(path, errors[exits])
        if exits == len(trace.stops):
            return Leaf(cost, error)
        stop = Leaf(torch.zeros_like(cost), error)
        return Junction(cost, on(path, trace.stops[exits].logits), (behind(exits + 1, forks, path), stop))

    return behind(0, 0, 0)


def weighed(trace: RouteTrace, labels: Tensor, errors: list[Tensor], config: PolicyConfig) -> list[Tensor]:
    """Give the errors by which decisions are learned the gradients of the errors that classifiers minimise.

    Decisions are learned by cross-entropy, or by which answers are wrong. Classifiers may also minimise a distillation.
    That is the distance to the teacher's answer, which is much the same for right and wrong answers.

    Args:
        trace: The trace.
        labels: `[B]`.
        errors: `[B]` of each leaf, what its classifier minimises.
        config: By what decisions are learned.

    Returns:
        `[B]` of each leaf.
    """
    if config.error == "wrong":
        c_err = [(leaf.argmax(dim=1) != labels).to(leaf) for leaf in trace.leaves]
    else:
        c_err = [classification(leaf, labels) for leaf in trace.leaves]
    return [value.detach() + (error - error.detach()) for value, error in zip(c_err, errors, strict=True)]


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
    """Compute the policy's terms: their sum is L_ac (Eq. 3) or L_cr (Eq. 5), and c_mod (Eq. 9 and 10).

    Args:
        trace: The trace.
        costs: The cost table.
        errors: `[B]`, c_err of each leaf (`weighed`).
        config: The policy.
        k_cpt: The price of a unit of cost; `[B]` for a price for each image.
        choice: The training routing policy.
        squares: `[layers]`, the sum of the squared weights of each layer (`reach_of`). None without L2.

    Returns:
        The terms by name, means over the batch.
    """
    network = exit_tree(trace, costs, errors, k_cpt)
    terms = {}
    if config.l2 > 0 and squares is not None:
        reach = policy.reach_of(trace, choice)
        terms["l2"] = config.l2 * policy.activated_l2(reach, squares, routes=config.l2_routes)
    if config.kind == "actor":
        terms["inference"] = policy.expected_cost(network, choice).mean()
        if config.decisiveness > 0:
            terms["decisiveness"] = config.decisiveness * policy.decisiveness(network, choice).mean()
        return terms

    def constant(scores: Tensor) -> Tensor:
        return choice(scores).detach()

    terms["inference"] = policy.expected_cost(network, constant).mean()
    terms["utility"] = config.utility * policy.utility_regression(network, constant, policy.critics[config.kind]).mean()
    return terms
