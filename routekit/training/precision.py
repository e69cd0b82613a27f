"""Where bf16 is faster: by the hardware, and on CPUs also by a measurement of the network itself."""

import copy
import math
import time
from collections.abc import Callable

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from routekit.network.network import RoutedNetwork

# The least multiply-adds of a forward pass that is measured: some tenths of a second for a step on one core. No
# measured batch is larger than one in training. With less work in a batch, noise would decide, and two runs of one
# recipe could differ; and bf16 makes other use of a few small images than of a batch.
LEAST = 4e9
# How often each precision is timed, after a first time that does not count. On a machine that is busy otherwise, times
# differ by more than precisions do: then rounds disagree, and the hardware decides.
ROUNDS = 3
# Clearly faster: bf16 is less exact.
FASTER = 1.2

# A network, images, and whether in bf16 -> the seconds of one step.
Measure = Callable[[RoutedNetwork, Tensor, bool], float]


def use_bf16(precision: str, device: torch.device) -> bool:
    """Say by the hardware alone whether to autocast to bf16.

    Args:
        precision: "bf16", "fp32", or "auto": if the hardware multiplies matrices of bf16.
        device: The device.

    Returns:
        Whether to.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Without AMX, bf16 convolutions on a CPU may be emulated: eight times slower than fp32 on AVX2.
    return device.type == "cpu" and _has("amx_tile")


def decide_bf16(
    network: RoutedNetwork,
    precision: str,
    accelerator: Accelerator,
    *,
    images: int,
    cost: float,
    measure: Measure | None = None,
) -> bool:
    """Decide whether a run autocasts to bf16: where a CPU has instructions for it, by timing the network in training.

    The network and torch's random state do not change. All processes get the decision of the first.

    Args:
        network: The network, on its device.
        precision: "bf16", "fp32" or "auto". Only the last is measured.
        accelerator: The processes that train together.
        images: The images of a training step on one process.
        cost: Of an image, multiply-adds.
        measure: What times a step; None for `seconds_of_step`.

    Returns:
        Whether to.
    """
    device, decision = accelerator.device, use_bf16(precision, accelerator.device)
    if precision != "auto" or device.type != "cpu":
        return decision
    count = max(2, math.ceil(LEAST / cost))  # of one image, a batch norm may have no statistics
    if count <= images and (_has("amx_tile") or _has("avx512_bf16")):
        verdicts = _measured(network, count, measure or seconds_of_step)
        decision = verdicts.pop() if len(verdicts) == 1 else decision
    # Processes measure at once, as they train. What they find may differ.
    return bool(broadcast(torch.tensor(float(decision))))


def seconds_of_step(network: RoutedNetwork, x: Tensor, bf16: bool) -> float:
    """Time one forward and backward pass on a CPU.

    Args:
        network: The network, in training mode. Its gradients and statistics change.
        x: Images `[B, C, H, W]`.
        bf16: Whether to autocast.

    Returns:
        Seconds.
    """
    network.zero_grad()
    began = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        trace = network(x)
    loss: Tensor = sum((leaf.square().mean() for leaf in trace.leaves), torch.zeros(()))
    if loss.requires_grad:  # what only decides has no part in it
        torch.autograd.backward(loss)
    return time.perf_counter() - began


def _measured(network: RoutedNetwork, count: int, measure: Measure) -> set[bool]:
    """Time a copy of the network on some images, in turns -> what the rounds say: whether bf16 is clearly faster."""
    tried, verdicts = copy.deepcopy(network).train(), set[bool]()
    x = torch.randn(count, *network.spec.input_size, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=[]):  # dropout draws
        for round_ in range(1 + ROUNDS):
            fp32, bf16 = measure(tried, x, False), measure(tried, x, True)
            if round_ > 0:
                verdicts.add(fp32 > FASTER * bf16)
            if len(verdicts) > 1:
                break
    return verdicts


def _has(feature: str) -> bool:
    """Whether this CPU has instructions, by torch's name for them. None of other makes than x86 are known."""
    return bool(getattr(torch.cpu, f"_is_{feature}_supported", lambda: False)())
