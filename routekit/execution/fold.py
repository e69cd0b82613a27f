"""Fold what follows or makes the weights of convolutions into them: the same function in eval mode, with less to do."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers.std_conv import StdConv2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from routekit.backbones.unit import Backbone, Fold
from routekit.backbones.walk import walk_through
from routekit.execution.features import features_at
from routekit.network.network import RoutedNetwork
from routekit.network.paths import Paths, every_way
from routekit.network.program import Classify


class _Readers(TorchFunctionMode):
    """Counts, while it lasts, how many operators read each tensor, by its identity."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        # So that no two of them share an identity.
        self.kept: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):  # asking for a shape is not reading
            read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.count.update(map(id, read))
            self.kept += [result, *read]
        return result


@torch.no_grad()
def find_folds(model: nn.Module, walk: Callable[[_Readers], object]) -> list[Fold]:
    """Find the pairs to fold: a batch norm that alone reads the output of a convolution.

    Args:
        model: The pairs inside it are found.
        walk: Calls the model. It gets the counter of readers, and may add to it.

    Returns:
        The pairs, by their paths in `model`.
    """
    names = {module: name for name, module in model.named_modules()}
    outputs: dict[int, nn.Module] = {}
    pairs: list[tuple[int, Fold]] = []

    def after_conv(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs[id(output)] = module

    def before_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in outputs:
            pairs.append((id(inputs[0]), Fold(names[outputs[id(inputs[0])]], names[module])))

    hooks = []
    for module in model.modules():
        # Exact types: a weight-standardised convolution is not its weight.
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(after_conv))
        elif isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(before_norm))
    with _Readers() as readers:
        walk(readers)
    for hook in hooks:
        hook.remove()
    return [pair for tensor, pair in pairs if readers.count[tensor] == 1]


@torch.no_grad()
def fold(network: RoutedNetwork) -> list[Fold]:
    """Fold every pair that `network` has, in place: in all of its forms, branches and exits. Returns the pairs."""
    network.eval()
    pairs: list[Fold] = []
    for form in network.forms:
        for unit, x, _ in walk_through(form):
            for branch in unit.branches:
                pairs += _folds_of(network, branch, x)
        pairs += find_folds(network, partial(_walk, form))
    for step, x in features_at(network):
        if isinstance(step, Classify):
            pairs += _folds_of(network, step.head, x)
    pairs = list(dict.fromkeys(pairs))
    fold_pairs(network, pairs)
    network.folded = [*network.folded, *pairs]
    return pairs


def _walk(form: Backbone, readers: _Readers) -> None:
    """Run one image through every unit."""
    walked = list(walk_through(form))
    for unit, x, _ in walked:
        readers.count[id(x)] += 1  # a router does, or whoever skips the unit
        if isinstance(unit.block, Paths):
            every_way(unit.block, x)
    form.head(walked[-1][2])


def _folds_of(network: RoutedNetwork, part: nn.Module, x: Tensor) -> list[Fold]:
    """The pairs of a part that reads features x."""
    return find_folds(network, lambda _: every_way(part, x))


@torch.no_grad()
def fold_pairs(model: nn.Module, pairs: list[Fold]) -> None:
    """Fold batch norms into convolutions, in place.

    Args:
        model: The model.
        pairs: The pairs, by their paths in it.
    """
    values = {}
    for pair in pairs:
        conv, norm = model.get_submodule(pair.conv), model.get_submodule(pair.norm)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        values[pair.conv] = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
    fold_structure(model, pairs)
    for path, (weight, bias) in values.items():
        conv = model.get_submodule(path)
        conv.weight, conv.bias = weight, bias


def fold_structure(model: nn.Module, pairs: list[Fold]) -> None:
    """Change the modules as folding does, and leave the values to a state dict: a bias here, an identity there.

    Args:
        model: The model, which is changed in place.
        pairs: The pairs, by their paths in it.
    """
    for pair in pairs:
        conv, norm = model.get_submodule(pair.conv), model.get_submodule(pair.norm)
        assert isinstance(conv, nn.Conv2d)
        conv.bias = nn.Parameter(torch.zeros(conv.out_channels, device=conv.weight.device))
        # timm's BatchNormAct2d also holds what follows the normalisation.
        held = [getattr(norm, name, None) for name in ("drop", "act")]
        rest = [part for part in held if isinstance(part, nn.Module) and not isinstance(part, nn.Identity)]
        parent, _, name = pair.norm.rpartition(".")
        # One module by itself: the fusion of convolutions looks for an activation, not into a sequence.
        left = nn.Sequential(*rest) if len(rest) > 1 else next(iter(rest), nn.Identity())
        setattr(model.get_submodule(parent), name, left)


@torch.no_grad()
def settle_weights(model: nn.Module) -> None:
    """Put plain convolutions in the place of timm's that standardise their weights, in place.

    They do so at each call, and quantisers take their weights for features.

    Args:
        model: The model.
    """
    for path, conv in [*model.named_modules(remove_duplicate=False)]:
        if type(conv) is StdConv2d:
            parts = conv.weight.flatten(1)
            mean, variance = parts.mean(dim=1), parts.var(dim=1, unbiased=False)
            size: list[Any] = [conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups]
            plain = nn.Conv2d(conv.in_channels, conv.out_channels, *size)
            standard = (parts - mean.unsqueeze(1)) / (variance + conv.eps).sqrt().unsqueeze(1)
            plain.weight, plain.bias = nn.Parameter(standard.view_as(conv.weight)), conv.bias
            model.set_submodule(path, plain)
