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

    A `state_dict` level and a `module.` prefix are removed. Nothing pickled is executed. Raises InputError for a
    missing, damaged or foreign file, RoutekitError if a download fails.
    """
    path = _download(source) if "://" in source else Path(source)
    if not path.is_file():
        raise InputError(f"{source}: no such file")
    try:
        with path.open("rb"):  # a file that cannot be opened, told from one that is torn, for which torch says OSError
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
    # Only a hash says that the file in the cache is the one at this URL, and not another's best.pth.
    if match and target.exists() and not url.startswith("file:"):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), match.group(1) if match else None, progress=False)
    except URLError as error:
        raise RoutekitError(
            f"cannot download {url} ({error.reason}): give --weights PATH, or --weights none"
        ) from error
    except RuntimeError as error:
        raise InputError(f"{url} is not the file that its name promises: {first_line(error)}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise RoutekitError(f"cannot download {url} ({first_line(error)}): give --weights PATH") from error
    return target


def load_into(model: nn.Module, state: State, *, classifier: str, source: str) -> list[str]:
    """Load `state` into `model`; every name and shape must fit, but for the classifier's.

    A classifier of another size stays as it is initialised, and the returned sentences say so. Raises InputError if
    the checkpoint is of another network.
    """
    own = model.state_dict()
    notes = []
    weight = f"{classifier}.weight"
    if weight in state and weight in own and state[weight].shape[0] != own[weight].shape[0]:
        notes.append(
            f"the classifier of {source} ({state[weight].shape[0]} classes) was replaced by a new one "
            f"with {own[weight].shape[0]}"
        )
        state = {name: tensor for name, tensor in state.items() if not name.startswith(f"{classifier}.")}
        state |= {name: tensor for name, tensor in own.items() if name.startswith(f"{classifier}.")}
    # Old checkpoints lack this counter, which nothing reads in eval mode.
    state = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")} | state
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    unlike = sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if missing or unexpected or unlike:
        faults = [
            f"{len(names)} {what}, e.g. {names[0]}"
            for what, names in (("missing", missing), ("unknown", unexpected), ("of another shape", unlike))
            if names
        ]
        raise InputError(f"{source} is no checkpoint of this network: tensors " + "; ".join(faults))
    model.load_state_dict(state)
    return notes
