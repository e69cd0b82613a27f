"""The one training loop: dense fine-tuning, routed training and static baselines all run through it.

A dense network is a routed one whose only route runs everything; a static baseline has another fixed route. Both
have no routers to learn, so the whole run is what the last phase of routed training is: hard routing.
"""

import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.data.sources import DataSplits
from routekit.data.views import augmented_copies
from routekit.errors import InputError, TrainingError
from routekit.network.execution import relaxed, sparse
from routekit.network.network import RoutedNetwork
from routekit.network.pricing import OPERATIONS
from routekit.objective import terms
from routekit.objective.objective import Classification, Losses, ObjectiveWeights, objective
from routekit.routing.gate import gates, hard
from routekit.routing.policy import Choice, reach_of, shares, softly
from routekit.training.batches import Batches, step_seed
from routekit.training.log import MetricsLog, Progress
from routekit.training.optimizer import BuildOptimizer, build_optimizer, set_learning_rate
from routekit.training.precision import use_bf16
from routekit.training.price_control import control_of
from routekit.training.schedule import Schedule, TrainingConfig
from routekit.training.state import load_state, save_state
from routekit.training.teacher import Teacher
from routekit.training.throughput import adjust_for_throughput, squares_of

# At most this much work is lost when a run is killed.
SAVE_EVERY_SECONDS = 60.0


class Trainer:
    """Trains `network` on `data`, keeping its state in `folder` (None: nowhere).

    `target` is the budget in MACs for a network with learned routers. `teacher` is the dense network to distil
    from, needed if the objective asks for it. `on_step` is called after each step, `say` with sentences for the
    user, both on the main process only.
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
    ) -> None:
        self.network: RoutedNetwork = network.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.data, self.costs, self.config, self.weights = data, costs, config, weights
        self.target, self.seed, self.accelerator = target, seed, accelerator
        self.teacher: Teacher | None = None
        if teacher is not None and weights.needs_teacher:
            copied: RoutedNetwork = copy.deepcopy(teacher).to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            features = weights.feature_distillation > 0
            self.teacher = Teacher(copied, self.network, frozen=bool(config.frozen), features=features)
        if config.frozen:
            self.network.backbone.requires_grad_(False)
        self.folder, self.on_step, self.say = folder, on_step, say
        world = accelerator.num_processes
        batch_size = min(config.batch_size, len(data.train)) // world * world
        if batch_size == 0:
            raise InputError(f"a batch of {config.batch_size} cannot be split over {world} processes")
        self.batches = Batches(data.train, batch_size, seed=seed, rank=accelerator.process_index, world=world)
        learns = network.decides_at_units or network.stops_learn
        self.schedule = Schedule(config, self.batches.steps_per_epoch, learns)
        self.control = control_of(network)(network, data.val, costs, self.schedule, target, seed, accelerator, say)
        self.bf16 = use_bf16(config.precision, accelerator.device)
        self.step = 0
        self._saved_at = self._began = time.perf_counter()
        self._seconds_before = 0.0
        self.log = MetricsLog(None)
        self.optimizer = build_optimizer(network, config, optimizer)
        self.classification = loss or terms.classification
        self.model: nn.Module = network

    def fit(self) -> RoutedNetwork:
        """Train to the end of the schedule, from the saved state if there is one; returns the trained network.

        Raises TrainingError on a loss that is not finite; the last saved state is kept.
        """
        self._resume()
        self.model, self.optimizer = self.accelerator.prepare(self.network, self.optimizer)
        first = self.step
        if not self.schedule.steps:
            self.control.settle_rules()
        self._began = time.perf_counter()
        while self.step < self.schedule.steps:
            if self.step == self.schedule.hard_from and self.schedule.learns:
                self.control.freeze_units()
            losses = self._train_step()
            self.step += 1
            self.control.check(self.step)
            elapsed = time.perf_counter() - self._began
            rate = (self.step - first) * self.batches.batch_size / max(elapsed, 1e-9)
            self._report(losses, rate)
            end_of_epoch = self.step % self.schedule.steps_per_epoch == 0 or self.step == self.schedule.steps
            if end_of_epoch:
                self._measure_epoch()
            if end_of_epoch or time.perf_counter() - self._saved_at > SAVE_EVERY_SECONDS:
                self.save()
        return self.network

    @property
    def realized(self) -> float:
        """The realised cost when it was last measured, a fraction of the dense cost."""
        return self.control.realized

    @property
    def seconds(self) -> float:
        """Time spent training, what was spent before a resumption included."""
        return self._seconds_before + time.perf_counter() - self._began

    def save(self) -> None:
        """Write the state, atomically. When it is written changes nothing of the run."""
        self._saved_at = time.perf_counter()
        if self.folder is None or not self.accelerator.is_main_process:
            return
        save_state(
            self.folder / "state.pt",
            {
                "step": self.step,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
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
            state = load_state(path)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.control.load(state)
            self.step, position = state["step"], state["log"]
            self._seconds_before = state["seconds"]
            frozen = self.network.decides_at_units and self.step > self.schedule.hard_from
            for bank in self.network.banks:
                bank.requires_grad_(not frozen)
            self.say(f"going on from step {self.step} of {self.schedule.steps}")
        if self.accelerator.is_main_process:
            self.log = MetricsLog(self.folder / "metrics.jsonl", position)

    def _generator(self, purpose: int) -> torch.Generator:
        return torch.Generator().manual_seed(step_seed(self.seed, self.step, self.accelerator.process_index, purpose))

    @property
    def _is_hard(self) -> bool:
        return self.schedule.is_hard(self.step)

    def _train_step(self) -> Losses:
        images, labels = self.batches.at(self.step)
        device, spec = self.accelerator.device, self.network.spec
        copies, augmentation = self.config.copies, self.data.augmentation
        images, labels = augmented_copies(images, labels, copies, augmentation, self._generator(1))
        x = normalize(images.to(device), spec.mean, spec.std)
        labels = labels.to(device)
        # Dropout and drop path draw from the global generator.
        torch.manual_seed(step_seed(self.seed, self.step, self.accelerator.process_index))
        self.model.train()
        if self.config.frozen:
            self.network.backbone.eval()
        set_learning_rate(self.optimizer, self.schedule.learning_rate(self.step))
        routes, layout = None, self.network.layout
        if layout.forks:  # every path learns from all images: what the policy expects is over all of them
            routes = layout.every_path(len(x)).to(device)
            x, labels = x.repeat(layout.paths, 1, 1, 1), labels.repeat(layout.paths)
        hardly = self._is_hard or layout.forks
        prices = self.control.prices(self.step, len(x), self._generator(4))
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            trace = self.model(
                x,
                gate=hard if hardly else gates[self.config.gate],
                execution=sparse if hardly else relaxed,
                temperature=self.schedule.temperature(self.step),
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
            copies=self.config.copies,
            teacher=taught,
            routing=not hardly,
            k_cpt=self.control.budget.k_cpt(self.costs) if prices is None else prices / OPERATIONS,
            choice=self._choice(),
            squares=squares_of(self.network) if self.weights.policy.l2 > 0 else None,
            classification=self.classification,
        )
        if not torch.isfinite(losses.total.detach()):
            raise TrainingError(
                f"the loss became {float(losses.total.detach())} at step {self.step}; the last good state is kept: "
                "lower --learning-rate and go on with --resume, or start over with --force"
            )
        self.optimizer.zero_grad()
        self.accelerator.backward(losses.total)
        if self._adjusts_throughput:
            # By probabilities, also where decisions are drawn; every process has images of its own.
            soft = softly(self.schedule.temperature(self.step), epsilon=self.weights.policy.epsilon)
            with torch.no_grad():
                reach = self.accelerator.gather(reach_of(trace, soft))
            if self.weights.teaches_everywhere:
                reach = reach.clamp_min(shares(layout).to(reach))
            adjust_for_throughput(self.network, reach)
        self.optimizer.step()
        self.control.follow(self.step, trace, losses.gains)
        return losses

    @property
    def _adjusts_throughput(self) -> bool:
        """Whether parts of the network learn from few images; those that others teach as well do not, but in a tree."""
        alone = self.network.layout.forks or not self.weights.teaches_everywhere
        return self.network.stops_learn and self.config.throughput_adjusted and alone

    def _choice(self) -> Choice | None:
        """By which policy exits learn; None if there is none that does."""
        if not self.network.stops_learn:
            return None
        return self.weights.policy.choice(self.schedule.temperature(self.step), self._generator(3))

    def _report(self, losses: Losses, rate: float) -> None:
        if not self.accelerator.is_main_process:
            return
        by_name = {name: float(value.detach()) for name, value in losses.by_name.items()}
        phase = ("train" if not self.schedule.learns else "hard") if self._is_hard else "route"
        wanted = self.control.budget.wanted(self.step)
        self.on_step(Progress(self.step, self.schedule.steps, phase, by_name, self.realized, wanted, rate))
        if self.step % self.config.check_every == 0 or self.step == self.schedule.steps:
            self.log.write(
                kind="step",
                step=self.step,
                phase=phase,
                losses=by_name,
                realized=self.realized,
                wanted=wanted,
                cost_weight=self.control.budget.cost_weight,
                images_per_second=rate,
            )

    def _measure_epoch(self) -> None:
        """Measure accuracy, cost and routes on the validation images; warn of collapse from the first epoch on."""
        measured = self.control.measure(self.step)
        statistics = measured.statistics
        if not self.accelerator.is_main_process:
            return
        self.log.write(
            kind="validation",
            step=self.step,
            accuracy=measured.accuracy,
            realized=measured.cost / self.costs.dense,
            routes=statistics.unique,
            route_entropy=statistics.entropy,
            class_information=statistics.class_information,
            run_rate=statistics.run_rate,
            seconds=self.seconds,
        )
        annealed = self.step >= self.schedule.anneal_steps
        if self.network.decides_at_units and annealed and statistics.collapsed:
            self.say(
                f"routing has collapsed: {statistics.unique} routes, {statistics.entropy:.2f} bits, hardly more "
                "than a static network. Try a larger router learning rate, a higher diversity weight, a longer anneal"
            )
