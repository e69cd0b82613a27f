"""The one training loop: dense fine-tuning, routed training and static baselines all run through it.

A dense network is a routed one whose only route runs all units. A static baseline has another fixed route. Neither has
routers that learn, so the whole run is like the last phase of routed training: hard routing.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.data.sources import DataSplits
from routekit.data.views import augmented_copies
from routekit.errors import TrainingError
from routekit.junctions.act import stages_of
from routekit.network.execution import relaxed, sparse
from routekit.network.network import RoutedNetwork
from routekit.network.pricing import OPERATIONS
from routekit.objective import terms
from routekit.objective.objective import Classification, Losses, ObjectiveWeights, objective
from routekit.routing.gate import gates
from routekit.routing.policy import softly
from routekit.routing.reinforce import Drawing
from routekit.training.average import Average
from routekit.training.batches import Batches, step_seed
from routekit.training.drawing import drawing_of, leave_alone
from routekit.training.log import MetricsLog, Progress, findings
from routekit.training.optimizer import BuildOptimizer, build_optimizer, set_learning_rate
from routekit.training.precision import decide_bf16, use_bf16
from routekit.training.price_control import control_of
from routekit.training.schedule import Schedule, TrainingConfig
from routekit.training.state import reading_state, save_state
from routekit.training.teacher import Teacher
from routekit.training.throughput import follow_throughput, layers_of, squares_of

# At most this much work is lost when a run is killed.
SAVE_EVERY_SECONDS = 60.0


class Trainer:
    """Trains a network.

    Args:
        network: The network.
        data: The images.
        costs: The network's cost table.
        config: How to train.
        weights: The weights of the objective.
        target: The budget, MACs, for a network that decides.
        accelerator: The processes that train together.
        seed: Of the run.
        teacher: The dense network to distil from, if the objective distils.
        folder: Where the state and the metrics are kept. None for nowhere.
        on_step: Called after each step, on the main process.
        say: Called with sentences for the user.
        loss: The loss of each image; None for cross-entropy.
        optimizer: Builds the optimiser; None for SGD.
        inference: How inference decides: "hard", or "bernoulli" for samples.

    Raises:
        InputError: The processes are more than the samples of a batch.
    """

    def __init__(
        self,
        network: RoutedNetwork,
        data: DataSplits,
        costs: CostTable,
        config: TrainingConfig,
        weights: ObjectiveWeights,
        *,
        target: float,
        accelerator: Accelerator,
        seed: int = 0,
        teacher: RoutedNetwork | None = None,
        folder: Path | None = None,
        on_step: Callable[[Progress], None] = lambda progress: None,
        say: Callable[[str], None] = lambda sentence: None,
        loss: Classification | None = None,
        optimizer: BuildOptimizer | None = None,
        inference: str = "hard",
    ) -> None:
        self.network, self.data, self.costs, self.config, self.weights = network, data, costs, config, weights
        self.seed, self.accelerator, self.folder, self.on_step, self.say = seed, accelerator, folder, on_step, say
        place = {"device": accelerator.device, "memory_format": torch.channels_last}
        network.to(**place)
        self.teacher: Teacher | None = None
        if teacher is not None and weights.needs_teacher:
            copied, features = copy.deepcopy(teacher).to(**place), weights.feature_distillation > 0
            self.teacher = Teacher(copied, network, frozen=bool(config.frozen), features=features)
        if config.frozen:
            network.backbone.requires_grad_(False)
        rank, world = accelerator.process_index, accelerator.num_processes
        self.batches = Batches(data.train, config.batch_size, seed=seed, rank=rank, world=world)
        if network.decides_at_units:
            weights.check(config.copies)
        decides = network.decides_at_units or network.stops_learn
        self.schedule = Schedule(config, self.batches.steps_per_epoch, decides, weights.unpriced)
        self.control = control_of(network)(network, data.val, costs, self.schedule, target, seed, accelerator, say)
        self.control.gate = self.gate = config.deciding(inference)
        self.layers = layers_of(network) if network.stops_learn else []
        self.average = Average(network, config.average, frozen=bool(config.frozen))
        self.bf16 = use_bf16(config.precision, accelerator.device)
        self.step = 0
        self._saved_at = self._began = time.perf_counter()
        self._seconds_before = 0.0
        self.log = MetricsLog(None)
        self.optimizer = build_optimizer(network, config, optimizer)
        self.classification = loss or terms.classification
        self.model: nn.Module = network

    def fit(self) -> RoutedNetwork:
        """Train to the end of the schedule, from the saved state if there is one.

        Returns:
            The trained network.

        Raises:
            TrainingError: The loss is not finite. The last saved state is kept.
        """
        self._resume()
        if self.step == 0 and self.schedule.steps:
            images = self.batches.batch_size // self.accelerator.num_processes * self.config.copies
            choice = self.config.precision, self.accelerator
            self.bf16 = decide_bf16(self.network, *choice, images=images, cost=self.costs.dense)
        self.model, self.optimizer = self.accelerator.prepare(self.network, self.optimizer)
        first, batches = self.step, self.batches.since(self.step)
        if not self.schedule.steps:
            self.control.settle_rules()
        self._began = time.perf_counter()
        while self.step < self.schedule.steps:
            if self.step == self.schedule.hard_from and self.schedule.learns:
                self.control.freeze_units()
            losses = self._train_step(next(batches))
            self.step += 1
            self.average.update(self.step)
            self.control.check(self.step)
            elapsed = max(time.perf_counter() - self._began, 1e-9)
            self._report(losses, rate=(self.step - first) * self.batches.batch_size / elapsed)
            end_of_epoch = self.step % self.schedule.steps_per_epoch == 0 or self.step == self.schedule.steps
            if end_of_epoch:
                self._measure_epoch()
            if end_of_epoch or time.perf_counter() - self._saved_at > SAVE_EVERY_SECONDS:
                self.save()
        self.average.keep()
        return self.network

    @property
    def realized(self) -> float:
        """The last measured cost, a fraction of the dense cost."""
        return self.control.realized

    @property
    def seconds(self) -> float:
        """The time of training, with that before a resumption."""
        return self._seconds_before + time.perf_counter() - self._began

    def save(self) -> None:
        """Write the state, atomically. This does not change the run."""
        self._saved_at = time.perf_counter()
        if self.folder is None or not self.accelerator.is_main_process:
            return
        save_state(
            self.folder / "state.pt",
            {
                "step": self.step,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.values,
                "bf16": self.bf16,
                **self.control.state(),
                "seconds": self.seconds,
                "log": self.log.position,
            },
        )

    def _resume(self) -> None:
        if self.folder is None:
            return
        path, position = self.folder / "state.pt", 0
        if path.exists():
            with reading_state(path) as state:
                self.network.load_state_dict(state["network"])
                self.optimizer.load_state_dict(state["optimizer"])
                # Runs that began before there were averages went by the hardware.
                self.average.load(state.get("average", []))
                self.bf16 = state.get("bf16", self.bf16)
                self.control.load(state)
                self.step, position, self._seconds_before = state["step"], state["log"], state["seconds"]
                frozen = self.network.decides_at_units and self.step > self.schedule.hard_from
                for bank in self.network.banks:
                    bank.requires_grad_(not frozen)
            self.say(f"going on from step {self.step} of {self.schedule.steps}")
        if self.accelerator.is_main_process:
            self.log = MetricsLog(self.folder / "metrics.jsonl", position, self.accelerator.log)

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(step_seed(self.seed, self.step, self.accelerator.process_index, purpose))

    def _train_step(self, batch: tuple[Tensor, Tensor]) -> Losses:
        network, config, device = self.network, self.config, self.accelerator.device
        images, labels = augmented_copies(*batch, config.copies, self.data.augmentation, self._generator(1))
        x, labels = normalize(images.to(device), network.spec.mean, network.spec.std), labels.to(device)
        # Dropout and drop path draw from the global generator.
        torch.manual_seed(step_seed(self.seed, self.step, self.accelerator.process_index))
        self.model.train()
        if config.frozen:
            network.backbone.eval()
        set_learning_rate(self.optimizer, self.schedule.learning_rate(self.step))
        routes, layout, policy = None, network.layout, self.weights.policy
        if layout.forks:  # every path learns from all images, because the policy's expectation is over all paths
            routes = layout.every_path(len(x)).to(device)
            x, labels = x.repeat(layout.paths, 1, 1, 1), labels.repeat(layout.paths)
        is_hard, temperature = self.schedule.is_hard(self.step) or layout.forks, self.schedule.temperature(self.step)
        prices = self.control.prices(self.step, len(x), self._generator(4))
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            drawn = None if is_hard else drawing_of(network, self.weights.reward, self.schedule, self.step, x)
            gate = (
                self.gate if is_hard else gates[config.gate] if drawn is None else Drawing(drawn.choice, drawn.locked)
            )
            trace = self.model(
                x,
                gate=gate,
                execution=sparse if is_hard or drawn is not None else relaxed,
                temperature=temperature,
                generator=self._generator(2),
                routes=routes,
                keep_features=self.teacher is not None and self.teacher.features,
                k_cpt=prices,
            )
            taught = None if self.teacher is None else self.teacher(x, trace)
        losses = objective(
            trace,
            labels,
            self.costs,
            self.weights,
            cost_weight=self.control.budget.cost_weight,
            copies=config.copies,
            teacher=taught,
            routing=not is_hard,
            k_cpt=self.control.budget.k_cpt(self.costs) if prices is None else prices / OPERATIONS,
            choice=policy.choice(temperature, self._generator(3)) if network.stops_learn else None,
            squares=squares_of(self.layers) if self.layers and policy.l2 > 0 else None,
            drawn=drawn,
            stages=stages_of(network),
            classification=self.classification,
        )
        if not torch.isfinite(losses.total.detach()):
            raise TrainingError(
                f"the loss became {float(losses.total.detach())} at step {self.step}; the last good state is kept: "
                f"start over with force=True and a training.learning_rate lower than {config.learning_rate:g}"
            )
        self.optimizer.zero_grad()
        self.accelerator.backward(losses.total)
        leave_alone(network, drawn)
        if network.stops_learn and config.throughput_adjusted:
            chances, everywhere = softly(temperature, epsilon=policy.epsilon), self.weights.teaches_everywhere
            follow_throughput(self.layers, trace, chances, self.accelerator, taught=everywhere)
        self.optimizer.step()
        self.control.follow(self.step, trace, losses.gains)
        return losses

    def _report(self, losses: Losses, rate: float) -> None:
        if not self.accelerator.is_main_process:
            return
        learned = "hard" if self.schedule.learns else "train"
        found: dict[str, Any] = {
            "step": self.step,
            "phase": learned if self.schedule.is_hard(self.step) else "route",
            "losses": {name: float(value.detach()) for name, value in losses.by_name.items()},
            "realized": self.realized,
            "wanted": self.control.budget.wanted(self.step),
        }
        self.on_step(Progress(steps=self.schedule.steps, images_per_second=rate, **found))
        if self.step % self.config.check_every == 0 or self.step == self.schedule.steps:
            found["cost_weight"] = self.control.budget.cost_weight
            self.log.write(kind="step", **found, images_per_second=rate)

    def _measure_epoch(self) -> None:
        """Measure accuracy, cost and routes on the validation images, and warn of collapsed routing."""
        with self.average.applied():
            measured = self.control.measure(self.step)
        if not self.accelerator.is_main_process:
            return
        found = findings(measured, self.costs.dense)
        self.log.write(kind="validation", step=self.step, **found, seconds=self.seconds)
        statistics = measured.statistics
        annealed = self.step >= self.schedule.anneal_from + self.schedule.anneal_steps
        if self.network.decides_at_units and annealed and statistics.collapsed:
            self.say(
                f"routing has collapsed: {statistics.unique} routes, {statistics.entropy:.2f} bits, hardly more "
                "than a static network. Try a larger router learning rate, a higher diversity weight, a longer anneal"
            )
