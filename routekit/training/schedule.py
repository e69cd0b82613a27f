"""The schedule of a training run: phases, learning rate, temperature, budget."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as settings

from routekit.registry import one_of
from routekit.routing.gate import Gate, gates, hard, sampling

# Wang et al. lower the learning rate at 150 and 200 epochs. Their recipe has 250 epochs here.
MILESTONES = (0.6, 0.8)

# Of numbers that have a lower bound: infinite ones are refused as well.
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@settings(frozen=True, config=ConfigDict(extra="forbid"))
class TrainingConfig:
    """How a network is trained. Fractions are of the whole run.

    Attributes:
        epochs: The length of the run.
        batch_size: Samples per step, over all processes.
        copies: M of Eq. 5 of Wang et al., the augmented copies of each sample.
        learning_rate: The peak, for the backbone.
        router_learning_rate: The learning rate of routers, in multiples of the backbone's. The benefit gate, a
            least-squares fit, needs less than 1. The other gates need 1 to 10.
        router_weight_decay: Of the routers' weights, not of their biases. It holds down the differences between routes.
        momentum: Of SGD.
        nesterov: Whether that is Nesterov's.
        weight_decay: Of the weights that compute.
        decay: How the learning rate falls.
        half_life: The fraction in which the decay "exponential" halves the learning rate.
        warmup: The fraction in which the learning rate rises.
        gate: The relaxation while routers learn.
        temperature: The first and the last temperature of the gate. It falls geometrically.
        anneal: The fraction in which the wanted cost falls from the dense cost to the target.
        hard: The last fraction, under hard routing with frozen routers.
        congestion: Keeps routes diverse, with the benefit gate (`PriceController`).
        average: The decay of an exponential moving average of the weights, which is measured and kept in their place.
            None is kept for 0.
        precision: "auto" is bf16 on CUDA. On CPUs with instructions for it, it is bf16 if a short measurement finds it
            clearly faster; if there is too little to measure, or too much noise, if there is AMX. Else it is fp32.
        frozen: Train only what was added to the network. None for "if all that was added has weights of its own".
        throughput_adjusted: Scale the gradients of each section by how many images reach it (section 4.5 of McGill and
            Perona). It has no effect if heads or feature distillation teach the section from all images.
        check_every: The steps between two measurements of the realised cost on held-out images.
        check_images: The number of images of such a measurement.
    """

    epochs: Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)] = 6.0
    batch_size: Annotated[int, Field(ge=1, le=2**20)] = 128
    copies: Annotated[int, Field(ge=1, le=64)] = 1
    learning_rate: Positive = 0.05
    router_learning_rate: Positive = 0.3
    router_weight_decay: NotNegative = 0.003
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: NotNegative = 5e-4
    decay: Literal["cosine", "multistep", "exponential"] = "cosine"
    half_life: Positive = 0.125
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.02
    gate: Annotated[str, one_of("gate", gates)] = "benefit"
    temperature: tuple[Positive, Positive] = (1.0, 1.0)
    anneal: Annotated[float, Field(ge=0, le=1)] = 0.1
    hard: Annotated[float, Field(ge=0, le=1)] = 0.7
    congestion: NotNegative = 0.4
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    frozen: bool | None = None
    throughput_adjusted: bool = True
    check_every: Annotated[int, Field(ge=1, le=10**9)] = 20
    check_images: Annotated[int, Field(ge=1, le=10**9)] = 256

    def deciding(self, inference: str) -> Gate:
        """The gate of inference, "hard" or "bernoulli": that samples as training does at its end."""
        return hard if inference == "hard" else sampling(self.gate, self.temperature[1])


@dataclass(frozen=True)
class Schedule:
    """A TrainingConfig over a known number of steps.

    Attributes:
        config: The config.
        steps_per_epoch: The steps of an epoch.
        learns: Whether something learns to decide.
        unpriced: The part of the phase in which units learn, at its beginning, in which the cost does not count.
    """

    config: TrainingConfig
    steps_per_epoch: int
    learns: bool
    unpriced: float = 0.0

    @property
    def steps(self) -> int:
        """The steps of the whole run."""
        return round(self.config.epochs * self.steps_per_epoch)

    @property
    def hard_from(self) -> int:
        """The first step under hard routing with frozen routers. It is 0 if nothing learns to decide."""
        return round(self.steps * (1 - self.config.hard)) if self.learns else 0

    def is_hard(self, step: int) -> bool:
        """Whether `step` is in the last phase."""
        return step >= self.hard_from

    @property
    def anneal_steps(self) -> int:
        """The steps over which the wanted cost falls."""
        return round(self.steps * self.config.anneal)

    @property
    def anneal_from(self) -> int:
        """The step at which the wanted cost begins to fall."""
        return round(self.hard_from * self.unpriced)

    def since(self, share: float, step: int) -> float:
        """How much of the last `share` of the phase in which units learn is over at `step`; negative before it."""
        first = self.hard_from * (1 - share)
        return (step - first) / max(1.0, self.hard_from - first)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate at `step`: a linear warm-up, then what `decay` says.

        "cosine" is a half cosine to 0. "multistep" divides by ten at each of `MILESTONES`, those of Wang et al.
        """
        done = step / max(1, self.steps)
        if done < self.config.warmup:
            return self.config.learning_rate * (step + 1) / max(1.0, self.config.warmup * self.steps)
        if self.config.decay == "exponential":
            return float(self.config.learning_rate * 0.5 ** (done / self.config.half_life))
        if self.config.decay == "multistep":
            return float(self.config.learning_rate * 0.1 ** sum(done >= milestone for milestone in MILESTONES))
        after = (done - self.config.warmup) / (1 - self.config.warmup)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * after))

    def temperature(self, step: int) -> float:
        """Return the gate's temperature at `step`. It reaches the last one when the last phase begins."""
        first, last = self.config.temperature
        return float(first * (last / first) ** min(1.0, step / max(1, self.hard_from)))
