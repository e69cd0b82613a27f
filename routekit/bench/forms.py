"""The forms in which a dense and a routed network can run, by runtime; the fastest of each side counts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from routekit.errors import InputError
from routekit.execution.executor import MaskedExecutor, SparseExecutor
from routekit.execution.fuse import can_fuse, fuse
from routekit.execution.prepare import prepare
from routekit.execution.timing import Call
from routekit.formats.checkpoint import save_network
from routekit.formats.program import Dense
from routekit.formats.sections import decides_inside
from routekit.network.network import RoutedNetwork
from routekit.registry import Registry
from routekit.runtime.passes import open_passes
from routekit.runtime.runtime import need

if TYPE_CHECKING:
    from routekit.formats.onnx.assembly import Form

Make = Callable[[], Call]


@dataclass(frozen=True)
class Setting:
    """Where and how to run.

    Attributes:
        device: Where torch computes.
        threads: The number of CPU threads.
        compiled: Whether compiled forms compete.
        folder: For exported files.
        say: What shows messages.
        calibration: Training images `[N, C, H, W]`, normalised, by which forms in int8 are quantised. None: there are
            no such forms.
    """

    device: torch.device
    threads: int
    compiled: bool
    folder: Path
    say: Callable[[str], None]
    calibration: Tensor | None = None


@dataclass(frozen=True)
class Forms:
    """By name, how to make a call on images `[B, C, H, W]` on the CPU, normalised, channels-last.

    Attributes:
        dense: Forms of the network without routing.
        routed: Routed forms for any number of images.
        single: Routed forms that take one image only.
        version: Of the runtime.
        device: Where it computes.
    """

    dense: dict[str, Make]
    routed: dict[str, Make]
    single: dict[str, Make]
    version: str
    device: str = "cpu"

    def for_batch(self, batch: int) -> dict[str, Make]:
        """What competes at a batch size, by side and name."""
        sides = {"dense": self.dense, "routed": self.routed | (self.single if batch == 1 else {})}
        return {f"{side} {name}": make for side, forms in sides.items() for name, make in forms.items()}


# What must be installed for a runtime, beside torch; the extra has its name.
PACKAGES = {"torch": (), "onnx": ("onnxruntime", "onnxscript"), "openvino": ("openvino", "onnxscript")}
# The same in int8 are runtimes of their own: what is in int8 gives other answers, now and then.
INT8 = "-int8"
PACKAGES |= {f"{name}{INT8}": ("onnxruntime", *PACKAGES[name]) for name in ("onnx", "openvino")}

FILES: "tuple[Form, ...]" = ("dense", "batch", "single")

Builder = Callable[[RoutedNetwork, Setting], Forms]
runtimes: Registry[Builder] = Registry("runtime")


def check_installed(name: str) -> None:
    """Raise InputError for an unknown runtime, or one whose packages are not installed."""
    runtimes[name]  # raises for an unknown name
    for package in PACKAGES[name]:
        need(package, name.removesuffix(INT8))


@runtimes.register("torch")
def torch_forms(network: RoutedNetwork, setting: Setting) -> Forms:
    """Eager, with fused convolutions, and compiled; batch norms folded, channels-last."""
    device = setting.device
    whole = network.without_routing()

    def made(kind: type[SparseExecutor], which: RoutedNetwork, *, fused: bool) -> Make:
        def make() -> Call:
            prepared = prepare(which).to(device)
            return _on(device, kind(fuse(prepared) if fused else prepared))

        return make

    dense = {"eager": made(SparseExecutor, whole, fused=False)}
    routed = {"eager": made(SparseExecutor, network, fused=False)}
    if can_fuse(prepare(network).to(device)):
        dense["fused"] = made(SparseExecutor, whole, fused=True)
        routed["fused"] = made(SparseExecutor, network, fused=True)
        routed["masked"] = made(MaskedExecutor, network, fused=True)
    compiles = setting.compiled and not network.layout.forks and _compiles()
    if compiles and not decides_inside(network) and device.type == "cpu":
        save_network(setting.folder / "network", network, about={})
        opened = partial(open_passes, setting.folder / "network", "torch", threads=setting.threads, compiled=True)
        routed["compiled passes"] = partial(_for_each_size, lambda size: opened(batch=size))
    if compiles:
        # Freezing lets the compiler lay out the weights and fuse what follows a convolution into it. How many images
        # are on each path of a tree is not known when it is compiled.
        options: Any = {"freezing": True}

        def compiled() -> Call:
            return _on(device, torch.compile(Dense(prepare(whole).to(device)), dynamic=False, options=options))

        dense["compiled"] = compiled
    return Forms(dense, routed, {}, torch.__version__, device.type)


def _compiles() -> bool:
    """Whether torch.compile works here: it needs a C++ compiler."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(2))
    except Exception:
        return False
    return True


def _on(device: torch.device, call: Callable[[Tensor], Any]) -> Call:
    @torch.inference_mode()
    def run(images: Tensor) -> object:
        return call(images.to(device, memory_format=torch.channels_last))

    return run


def _for_each_size(make: Callable[[int], Call]) -> Call:
    """A call that is made anew for each batch size: runtimes plan better for a fixed size."""
    made = cache(make)
    return lambda images: made(len(images))(images)


@runtimes.register("onnx")
def onnx_forms(network: RoutedNetwork, setting: Setting) -> Forms:
    """Onnxruntime on exported files, portable and native."""
    import onnxruntime

    from routekit.formats.onnx.file import save_onnx
    from routekit.formats.onnx.passes import save_passes
    from routekit.formats.onnx.piece import Exporter
    from routekit.formats.onnx.session import open_session

    def session(file: Path, size: int) -> Call:
        opened = open_session(file, threads=setting.threads, batch=size)
        return lambda images: opened.run(None, {"images": images.contiguous().numpy()})

    exporter = Exporter()
    files = save_onnx(setting.folder / "portable", network, {}, exporter, forms=FILES)
    dense, batch, single = (partial(_for_each_size, partial(session, file)) for file in files)
    files = save_onnx(setting.folder / "native", network, {}, exporter, forms=FILES[1:], native=True)
    native_batch, native_single = (partial(_for_each_size, partial(session, file)) for file in files)
    routed: dict[str, Make] = {"portable batch": batch, "native batch": native_batch}
    if not decides_inside(network):
        save_passes(setting.folder / "passes", network, {}, exporter)
        routed["passes"] = _passes(setting.folder / "passes", "onnx", setting)
    # onnxruntime itself brings the dense file into the native layout.
    return Forms(
        {"native": dense},
        routed,
        {"portable single": single, "native single": native_single},
        onnxruntime.__version__,
    )


@runtimes.register("openvino")
def openvino_forms(network: RoutedNetwork, setting: Setting) -> Forms:
    """OpenVINO on exported files."""
    import openvino

    from routekit.formats.onnx.file import save_onnx
    from routekit.formats.openvino import save_openvino

    core = openvino.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": setting.threads,
    }

    def model(file: Path, size: int) -> Call:
        read = core.read_model(str(file))
        read.reshape([size, *network.spec.input_size])
        compiled = core.compile_model(read, "CPU", options)
        return lambda images: compiled([images.contiguous().numpy()])

    files = save_openvino(setting.folder, save_onnx(setting.folder / "openvino", network, {}, forms=FILES))
    dense, batch, single = (partial(_for_each_size, partial(model, file)) for file in files)
    routed: dict[str, Make] = {"batch": batch}
    if not decides_inside(network):
        from routekit.formats.onnx.passes import save_passes

        save_passes(setting.folder / "passes", network, {})
        routed["passes"] = _passes(setting.folder / "passes", "openvino", setting)
    return Forms({"dense": dense}, routed, {"single": single}, openvino.__version__.split("-")[0])


def _passes(folder: Path, runtime: str, setting: Setting) -> Make:
    """What makes a call of exported passes."""
    return partial(_for_each_size, lambda size: open_passes(folder, runtime, batch=size, threads=setting.threads))


def _in_int8(runtime: str, network: RoutedNetwork, setting: Setting) -> Forms:
    """The passes of a network, and the dense one, quantised by onnxruntime."""
    from routekit.formats.onnx.passes import save_passes
    from routekit.runtime.quantize import quantize_passes

    if decides_inside(network):
        raise InputError(f"{network.name} decides inside of a pass: {runtime}{INT8} is for networks that do not")
    if setting.calibration is None:
        raise InputError(f"{runtime}{INT8} needs training images, by which passes are quantised")
    made = {}
    for name, which in (("dense", network.without_routing()), ("passes", network)):
        folder = setting.folder / runtime / name
        save_passes(folder, which, {})
        quantize_passes(folder, setting.calibration, runtime=runtime)
        made[name] = _passes(folder, runtime, setting)
    return Forms({"dense": made["dense"]}, {"passes": made["passes"]}, {}, version(PACKAGES[runtime][0]))


for _runtime in ("onnx", "openvino"):
    runtimes.register(f"{_runtime}{INT8}")(partial(_in_int8, _runtime))
