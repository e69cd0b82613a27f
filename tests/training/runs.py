"""Short trainings of a toy network."""

from pathlib import Path

import torch
from accelerate import Accelerator

from routekit.cost.table import CostTable
from routekit.junctions.convert import convert
from routekit.junctions.exit import Exit
from routekit.junctions.junction import Junction
from routekit.junctions.skip import Skip
from routekit.network.network import RoutedNetwork
from routekit.objective.objective import ObjectiveWeights
from routekit.objective.policy import PolicyConfig
from routekit.routing.router import RouterConfig
from routekit.training.schedule import TrainingConfig
from routekit.training.trainer import Trainer
from tests.toy import toy_data, toy_view

CONFIG = TrainingConfig(
    epochs=4, batch_size=32, learning_rate=0.05, check_every=2, check_images=48, precision="fp32", copies=2,
    gate="straight-through", router_learning_rate=5.0, router_weight_decay=0.0, anneal=0.4, hard=0.35,
)  # fmt: skip


BENEFIT = TrainingConfig(**{**vars(CONFIG), "gate": "benefit", "router_learning_rate": 0.2, "copies": 1})


WEIGHTS = ObjectiveWeights(diversity=0.2, distillation=0.5)


def trainer(folder: Path | None = None, network: RoutedNetwork | None = None, **options: object) -> Trainer:
    view = toy_view()
    if network is None:
        torch.manual_seed(0)
        network = convert(view, [Skip()], routers=RouterConfig(hidden=8, open_logit=0.5))
    costs = CostTable.measure(network)
    settings: dict = {"config": CONFIG, "weights": WEIGHTS, "target": 0.7 * costs.dense, "teacher": convert(toy_view())}
    settings |= options
    return Trainer(network, toy_data(), costs, accelerator=Accelerator(cpu=True), folder=folder, seed=3, **settings)


def with_exits(kind: str = "actor", rule: str = "learned", *, skips: bool = True, **policy: object) -> dict:
    """Options of a trainer whose network has an exit after its second unit."""
    torch.manual_seed(0)
    leaving = Exit(at="body.1", head="linear", hidden=8, rule=rule)
    junctions: list[Junction] = [Skip(), leaving] if skips else [leaving]
    network = convert(toy_view(), junctions, routers=RouterConfig(hidden=8, open_logit=0.5))
    weights = ObjectiveWeights(diversity=0.2, distillation=0.5, policy=PolicyConfig(kind=kind, **policy))
    config = TrainingConfig(**{**vars(BENEFIT), "learning_rate": 0.02, "epochs": 8})
    return {"network": network, "weights": weights, "config": config}
