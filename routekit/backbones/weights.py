"""Read weights from a file or a URL without running pickled code, and load them into a model."""

import hashlib
import re
import warnings
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import url2pathname

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from routekit.errors import InputError, RoutekitError, first_line

State = dict[str, Tensor]

# Levels that checkpoints put above the tensors, and prefixes that wrappers put before the names.
_LEVELS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")
# As in torch.hub, a name may end with the beginning of the file's SHA-256.
HASH = re.compile(r"-([0-9a-f]{8,})\.")


def read_state_dict(source: str) -> State:
    """Read a .th, .pt, .pth or .safetensors file, or one at an http(s):// or file:// URL.

    A `state_dict` level and a `module.` prefix are removed. Nothing pickled is executed.

    Raises:
        InputError: The file is missing or damaged, or holds something else.
        RoutekitError: A download fails.
    """
    if "://" in source and not source.startswith("file:"):
        return _downloaded(source)
    if not source.startswith("file:"):
        return _read(Path(source), source)
    path = Path(url2pathname(urlparse(source).path))
    promised = HASH.search(path.name)
    if promised and path.is_file() and not hashlib.sha256(path.read_bytes()).hexdigest().startswith(promised[1]):
        raise InputError(f"{source} is not the file that its name promises")
    return _read(path, source)


def _read(path: Path, source: str) -> State:
    """Read a file."""
    if not path.is_file():
        raise InputError(f"{source}: no such file")
    try:
        with path.open("rb"):  # torch raises OSError for a damaged file, too
            pass
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror or error}") from error
    try:
        if path.suffix == ".safetensors":
            content = load_safetensors(path.read_bytes())
        else:
            with warnings.catch_warnings():  # a damaged file is an error below
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch passes on whatever the bytes make pickle raise
        if "Unsupported global" in str(error) or "TorchScript" in str(error):
            raise InputError(
                f"{source} holds more than tensors and would have to run its code to be read; "
                "save the model's state_dict() alone, best as .safetensors"
            ) from error
        raise InputError(f"{source} is damaged, or no checkpoint of tensors that torch can read") from error
    return _plain(content, source)


def _plain(content: object, source: str) -> State:
    """Take away the levels and prefixes that trainers add."""
    for level in _LEVELS:
        if isinstance(content, dict) and isinstance(content.get(level), dict):
            content = content[level]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(f"{source} is no checkpoint: it holds no state_dict of tensors")
    state = {str(name): tensor for name, tensor in content.items()}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _downloaded(url: str) -> State:
    """Fetch `url` into torch.hub's cache and read it. What cannot be used does not stay there."""
    name = Path(urlparse(url).path).name
    match = HASH.search(name)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    # Without a hash in its name, another file of the same name may be meant: each URL has its own, fetched anew.
    own = f"routekit-{hashlib.sha256(url.encode()).hexdigest()[:16]}{Path(name).suffix[:20]}"
    target = folder / (name if match else own)
    if match and target.exists():
        return _read(target, url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), match.group(1) if match else None, progress=False)
    except RuntimeError as error:
        raise InputError(f"{url} is not the file that its name promises: {first_line(error)}") from error
    except (OSError, HTTPException, ValueError) as error:
        why = error.reason if isinstance(error, URLError) else first_line(error)
        raise RoutekitError(f"cannot download {url} ({why}): give model.weights=PATH, or model.weights=none") from error
    try:
        return _read(target, url)
    except InputError:
        target.unlink(missing_ok=True)
        raise


def check_values(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Check that tensors hold what a network can compute with.

    Args:
        state: The tensors by name.
        own: Those of the network in whose place they come: their types.
        source: Where they come from, for messages.

    Raises:
        InputError: One is of whole numbers or truth values in the place of fractions, holds a value that is not finite,
            or is a variance under 0.
    """
    for name, tensor in state.items():
        wanted = own[name].is_floating_point() if name in own else tensor.is_floating_point()
        if wanted and not tensor.is_floating_point():
            raise InputError(f"{source}: {name} is of type {str(tensor.dtype).removeprefix('torch.')}, not a float")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{source}: {name} holds values that are not finite (NaN or infinity)")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise InputError(f"{source}: {name} is a variance, and has values under 0")


def load_into(model: nn.Module, state: State, *, classifier: str, source: str) -> list[str]:
    """Load a checkpoint into a model. Every name and shape must fit, but for the classifier's.

    Args:
        model: It is changed in place. A classifier of another size stays as it is.
        state: The tensors by name.
        classifier: The path of the last linear layer.
        source: Where the tensors come from, for messages.

    Returns:
        Sentences for the user, about a classifier of another size.

    Raises:
        InputError: The checkpoint is of another network, or holds values that cannot be weights (`check_values`).
    """
    own = model.state_dict()
    notes = []
    weight = f"{classifier}.weight"
    if weight in state and weight in own and len(state[weight]) != len(own[weight]):
        notes.append(
            f"the classifier of {source} ({len(state[weight])} classes) was replaced by a new one "
            f"with {len(own[weight])}"
        )
        state = {name: tensor for name, tensor in state.items() if not name.startswith(f"{classifier}.")}
        state |= {name: tensor for name, tensor in own.items() if name.startswith(f"{classifier}.")}
    # Old checkpoints lack this counter, which nothing reads in eval mode.
    state = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")} | state
    faults = {
        "missing": own.keys() - state.keys(),
        "unknown": state.keys() - own.keys(),
        "of another shape": {name for name in own.keys() & state.keys() if own[name].shape != state[name].shape},
    }
    found = [f"{len(names)} {what}, e.g. {min(names)}" for what, names in faults.items() if names]
    if found:
        raise InputError(f"{source} is no checkpoint of this network: tensors " + "; ".join(found))
    check_values(state, own, source)
    model.load_state_dict(state)
    return notes
