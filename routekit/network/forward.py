"""The forward pass: what each kind of step does to a batch. One for training and inference."""

import torch
import torch.nn.functional as F
from torch import Tensor

from routekit.backbones.unit import ModelSpec
from routekit.network.paths import Paths, unmark
from routekit.network.program import Classify, Combine, Head, Interpreter, Stem, Stop, Units, View
from routekit.network.state import ForwardState

forward: Interpreter[ForwardState] = Interpreter("forward")


@forward.on(View)
def _view(step: View, state: ForwardState) -> None:
    state.mirrored = step.mirrored
    if not state.active.empty:
        state.view = seen(state.active.gather(state.images), state.spec, step)


@forward.on(Stem)
def _stem(step: Stem, state: ForwardState) -> None:
    state.memory = None
    state.stages = {} if state.keep_features and not state.mirrored else None
    if state.stages is not None:
        state.features.append(state.stages)
    if state.active.empty:
        return
    if step.shared:
        assert state.shared is not None  # the network has seen to it that it was kept
        state.x = state.shared
        return
    state.x = step.form.stem(state.view)
    state.shared = state.x if step.kept else None


@forward.on(Units)
def _units(step: Units, state: ForwardState) -> None:
    routers, index = step.routers, step.first
    if routers is not None and index == 0 and not state.active.empty:
        state.memory = routers.begin(state.view)
    for unit in step.units:
        if state.active.empty:  # a unit need not know what to do with nothing
            if unit.decides:
                state.decide_nothing(len(unit.sinks))
            continue
        if unit.decides:
            assert routers is not None
            logits, state.memory = routers(index, state.x, state.memory, state.price_feature)
            bias = routers.bias[routers.columns(range(index, index + 1))]
            if state.price is not None and state.pricing is not None:
                # The bias is that of the price in force.
                extra = state.pricing.extra_cost[routers.columns(range(index, index + 1))]
                bias = bias - (state.price - state.pricing.k_cpt).unsqueeze(1) * extra
            decision = state.decide(logits, state.gate, bias, routers.positions(index, state.x))
            state.x = state.execution(unit, state.x, decision)
            index += 1
        else:
            state.x = unit.run(state.x)
        if state.stages is not None:
            state.stages[unit.stage] = unmark(state.x)[0] if isinstance(unit.block, Paths) else state.x


@forward.on(Classify)
def _classify(step: Classify, state: ForwardState) -> None:
    if not state.active.empty:
        _answer(state, step.head(state.x), "replace")


@forward.on(Stop)
def _stop(step: Stop, state: ForwardState) -> None:
    if state.active.empty:
        state.decide_nothing()
    else:
        assert state.answer is not None  # a stop follows a classifier
        state.stop(step.decider(state.x, state.answer, state.price_feature))


@forward.on(Head)
def _head(step: Head, state: ForwardState) -> None:
    if not state.active.empty:
        _answer(state, step.form.head(state.x), step.combine)


def _answer(state: ForwardState, logits: Tensor, combine: Combine) -> None:
    state.answer, state.heads = combined(state.answer, state.heads, logits.float(), combine)


def seen(images: Tensor, spec: ModelSpec, view: View) -> Tensor:
    """Turn images into what a view sees of them.

    Args:
        images: `[b, C, H, W]`, normalised as `spec` wants them.
        spec: Of the first pass.
        view: The view.

    Returns:
        `[b, C, H', W']`, normalised as the view wants them, at its resolution.
    """
    wanted = view.spec
    if (spec.mean, spec.std) != (wanted.mean, wanted.std):
        mean, std, its_mean, its_std = (
            images.new_tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std, wanted.mean, wanted.std)
        )
        images = (images * std + mean - its_mean) / its_std
    if view.resolution is not None:
        images = F.interpolate(images, view.resolution, mode="bilinear", align_corners=False)
    return images.flip(-1) if view.mirrored else images


def combined(answer: Tensor | None, heads: int, logits: Tensor, combine: Combine) -> tuple[Tensor, int]:
    """Add a head's logits to the answer so far.

    Args:
        answer: `[b, classes]`, or None before the first head.
        heads: The number of heads whose mean the answer is.
        logits: `[b, classes]`.
        combine: How they are combined. The mean of probabilities is a logarithm again.

    Returns:
        The answer `[b, classes]`, and the number of heads whose mean it is.
    """
    if answer is None or combine == "replace":
        return logits, 1
    share = 1 / (heads + 1)
    if combine == "mean-logits":
        return answer * (heads * share) + logits * share, heads + 1
    mean = answer.softmax(dim=1) * (heads * share) + logits.softmax(dim=1) * share
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log(), heads + 1
