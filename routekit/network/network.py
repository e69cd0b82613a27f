"""The routed network: the original model, seen as stem, units and head, and a bank of routers that decides."""

import torch
from torch import Tensor, nn

from routekit.backbones.unit import Backbone, ModelSpec, ResidualUnit
from routekit.network.executor import Execution, sparse
from routekit.routing.decision import Decision, RouteTrace
from routekit.routing.gate import Gate, hard
from routekit.routing.router import RouterBank


class RoutedNetwork(nn.Module):
    """A network in which each image runs through only the units that its routers choose.

    `backbone` is the original module with its own parameter names; `view` says where its units are; `routers`
    scores one skip junction before each skippable unit. One forward serves training and inference: a gate turns
    logits into weights, an execution turns weights into features.
    """

    def __init__(self, view: Backbone, routers: RouterBank) -> None:
        super().__init__()
        self.backbone = view.model
        self.view = view
        self.routers = routers
        # A model that came in eval mode stays in it.
        self.train(view.model.training)

    @property
    def spec(self) -> ModelSpec:
        """The architecture, and what its images have to look like."""
        return self.view.spec

    @property
    def name(self) -> str:
        """The architecture's name."""
        return self.spec.full_name

    @property
    def columns(self) -> list[str]:
        """What the columns of a route decide: whether these units run."""
        return [unit.name for unit in self.junctions]

    @property
    def junctions(self) -> list[ResidualUnit]:
        """The units that can be skipped, in order; column i of a route is `junctions[i]`."""
        return [unit for unit in self.view.units if unit.skippable]

    @property
    def groups(self) -> list[range]:
        """Runs of junctions that see the same features as long as the units before them in the group are skipped.

        One survey scores what is left of a group. A bank that must be asked one by one has groups of one.
        """
        groups: list[range] = []
        fresh, index = True, 0
        for unit in self.view.units:
            if unit.skippable:
                if fresh or not self.routers.surveys:
                    groups.append(range(index, index))
                groups[-1] = range(groups[-1].start, index + 1)
                fresh, index = False, index + 1
            fresh = fresh or unit.shortcut is not None or not (unit.skippable or unit.dropped)
        return groups

    def forward(
        self,
        x: Tensor,
        *,
        gate: Gate = hard,
        execution: Execution = sparse,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        routes: Tensor | None = None,
        keep_features: bool = False,
    ) -> RouteTrace:
        """Images [B, C, H, W], normalised -> the trace of the batch, class logits [B, classes] in float32.

        `routes` [B, n] bool takes the place of the routers' decisions: to ask what another route would have given.
        `keep_features` keeps what left each stage in the trace, for distillation.
        """
        x = self.view.stem(x)
        decisions: list[Decision] = []
        features: dict[int, Tensor] = {}
        state = None
        for unit in self.view.units:
            if unit.skippable:
                logits, state = self.routers(len(decisions), x, state)
                if routes is not None:
                    run = routes[:, len(decisions)].to(logits).unsqueeze(1)
                    logits = torch.cat([run, 1 - run], dim=1)
                weights = gate(logits, temperature=temperature, generator=generator)
                decisions.append(Decision(logits=logits, weights=weights, choice=logits.argmax(dim=1)))
                x = execution(unit, x, decisions[-1])
            else:
                x = unit.run(x)
            if keep_features:
                features[unit.stage] = x
        return RouteTrace(
            logits=self.view.head(x).float(), decisions=tuple(decisions), features=tuple(features.values())
        )

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W], normalised -> class logits [B, classes], under hard routing in eval mode."""
        was_training = self.training
        self.eval()
        logits: Tensor = self(x).logits
        self.train(was_training)
        return logits

    def routing_parameters(self) -> list[nn.Parameter]:
        """The parameters that decide."""
        return list(self.routers.parameters())

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The parameters that compute."""
        return list(self.backbone.parameters())
