"""Read weights from a file or a URL without running pickled code, and load them into a model."""

import re
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from routekit.errors import InputError, RoutekitError, first_line

State = dict[str, Tensor]

# Levels that checkpoints put above the tensors, and prefixes that wrappers put before the names.
_LEVELS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")


def read_state_dict(source: str) -> State:
    """Read a .th, .pt, .pth or .safetensors file, or one at an http(s):// or file:// URL.

    A `state_dict` level and a `module.` prefix are removed. Nothing pickled is executed.

    Raises:
        InputError: The file is missing or damaged, or holds something else.
        RoutekitError: A download fails.
    """
    path = _download(source) if "://" in source else Path(source)
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


def _download(url: str) -> Path:
    """Fetch `url` into torch.hub's cache, checking the hash that its name ends with, if any."""
    name = Path(urlparse(url).path).name
    match = re.search(r"-([0-9a-f]{8,})\.", name)
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    # Without a hash in the name, the file in the cache may be another one of the same name.
    if match and target.exists() and not url.startswith("file:"):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), match.group(1) if match else None, progress=False)
    except RuntimeError as error:
        raise InputError(f"{url} is not the file that its name promises: {first_line(error)}") from error
    except (OSError, HTTPException, ValueError) as error:
        why = error.reason if isinstance(error, URLError) else first_line(error)
        raise RoutekitError(f"cannot download {url} ({why}): give model.weights=PATH, or model.weights=none") from error
    return target


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
        InputError: The checkpoint is of another network.
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
    model.load_state_dict(state)
    return notes
