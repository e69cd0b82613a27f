"""What a ladder chooses from: each form in each precision, with its files, its answers, and its times."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from routekit.backbones.load import build
from routekit.backbones.unit import ModelSpec
from routekit.cost.aim import Aim
from routekit.cost.table import CostTable
from routekit.data.augment import normalize
from routekit.data.image_set import Images
from routekit.data.sources import DataSplits
from routekit.documents import parse_json, read_document
from routekit.errors import InputError
from routekit.files import make_folder, whole_folder, write_atomically, write_text
from routekit.formats.checkpoint import load, save_network
from routekit.manifest import verify
from routekit.network.network import RoutedNetwork
from routekit.pipeline.machine import Hooks, processor_name
from routekit.runtime.drive import Clock, Passes
from routekit.runtime.runtime import need

# How many training images say which values features have, and how many images are timed.
CALIBRATION, TIMED = 300, 256
BATCH = 64
FORMS, TIMES = "forms.json", "times.json"
PRECISE = "fp32"
# What a pass answers, in its folder: by runtime and precision.
ANSWERS = "{}-{}.safetensors"


@dataclass(frozen=True)
class Rung:
    """A form in a precision: a pass that can be chosen.

    Attributes:
        form: The name of the form.
        precision: "fp32", "bf16" or "int8".
        macs: Its multiply-adds.
        bytes: Of its file, or in torch of its tensors.
        passes: How it is opened.
    """

    form: str
    precision: str
    macs: float
    bytes: int
    passes: Passes

    @property
    def name(self) -> str:
        """Its name."""
        return f"{self.form} {self.precision}"


@dataclass(frozen=True)
class Ladder:
    """The trained forms of a run, on disk; the last one is the dense network.

    Attributes:
        folder: Where the forms are.
        data: The images.
        hooks: Where sentences go.
        source: The specification of a user's own network; None for others.
    """

    folder: Path
    data: DataSplits
    hooks: Hooks
    source: ModelSpec | None = None

    @classmethod
    def write(
        cls, folder: Path, networks: Mapping[str, RoutedNetwork], data: DataSplits, hooks: Hooks, seconds: float = 0.0
    ) -> "Ladder":
        """Write the forms of a ladder; older ones are replaced.

        Args:
            folder: Where.
            networks: The forms by name, the dense network last.
            data: The images.
            hooks: Where sentences go.
            seconds: How long training took.

        Returns:
            The ladder.
        """
        make_folder(folder, "ladder")
        macs = {}
        for name, network in networks.items():
            network = network.cpu().eval()
            save_network(folder / name, network, about={"classes": list(data.classes)})
            macs[name] = CostTable.measure(network).dense
        write_text(folder / FORMS, json.dumps({"macs": macs, "seconds": seconds}, indent=2) + "\n")
        spec = network.spec
        return cls(folder, data, hooks, spec if spec.source == "custom" else None)

    @cached_property
    def _about(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = parse_json(read_document(self.folder / FORMS), self.folder / FORMS)
        except InputError as error:
            raise InputError(
                f"{self.folder} holds no trained forms: finish the run with resume={self.folder.parent}"
            ) from error
        return found

    @property
    def forms(self) -> dict[str, float]:
        """The multiply-adds of the forms, by name. Raises InputError: there are no forms."""
        macs: dict[str, float] = self._about["macs"]
        return macs

    @property
    def seconds(self) -> float:
        """How long training took."""
        return float(self._about["seconds"])

    def network(self, form: str) -> RoutedNetwork:
        """Load a form."""
        return load(self.folder / form, None if self.source is None else build(self.source))

    def rungs(self, aim: Aim) -> list[Rung]:
        """The passes that an aim can choose from; the last one is the dense network in float32, if only to compare.

        Args:
            aim: The aim.

        Returns:
            The passes. Missing files are made.

        Raises:
            InputError: A package is not installed.
        """
        check_packages(aim)
        dense = list(self.forms)[-1]
        wanted = [(form, precision) for form in self.forms for precision in aim.precisions]
        wanted = [each for each in wanted if each != (dense, PRECISE)]
        return [self._rung(form, precision, aim.where) for form, precision in (*wanted, (dense, PRECISE))]

    def _rung(self, form: str, precision: str, runtime: str) -> Rung:
        if runtime == "torch":
            tensors = self.network(form).state_dict().values()
            size = {"fp32": 4, "bf16": 2}[precision] * sum(tensor.numel() for tensor in tensors)
            passes = Passes(self.folder / form, (precision,), self.source)
            return Rung(form, precision, self.forms[form], size, passes)
        folder = self._folder(form, precision, runtime)
        file = folder / "pass-0.onnx"
        if not file.exists():
            self._export(form, precision, runtime, folder)
        return Rung(form, precision, self.forms[form], file.stat().st_size, Passes(folder))

    def _folder(self, form: str, precision: str, runtime: str) -> Path:
        """Where a pass and its answers are. Each runtime wants its own int8 graph."""
        own = precision if precision == PRECISE else f"{precision}-{runtime}"
        return self.folder / form if runtime == "torch" else self.folder / form / own

    def kept(self, name: str, runtime: str) -> Tensor | None:
        """What a pass has answered to the test images, if that is kept.

        Args:
            name: The name of the pass.
            runtime: In which runtime.

        Returns:
            `[N, classes]`; None if it has not answered, or to other images.

        Raises:
            InputError: The file is not as it was written.
        """
        form, _, precision = name.rpartition(" ")
        file = self._folder(form, precision, runtime) / ANSWERS.format(runtime, precision)
        if form not in self.forms or not file.exists():
            return None
        verify(file)
        found = load_file(file)
        return found["test"] if torch.equal(found["test labels"], self.data.test.labels) else None

    def _export(self, form: str, precision: str, runtime: str, folder: Path) -> None:
        """Write a form as one graph for a runtime."""
        from routekit.formats.onnx.passes import save_passes

        self.hooks.say(f"exporting {form} in {precision}")
        network = self.network(form)
        with whole_folder(folder, "network") as making:
            save_passes(making, network, {"classes": list(self.data.classes)})
            if precision == "int8":
                from routekit.runtime.quantize import quantize_passes

                quantize_passes(making, pixels(self.data.train, CALIBRATION, network), runtime=runtime)

    def logits(self, rungs: Sequence[Rung], runtime: str) -> dict[str, Tensor]:
        """What each pass answers: "val" and "test", `[passes, N, classes]`. It is kept in files."""
        found = [self._logits(rung, runtime) for rung in rungs]
        return {split: torch.stack([each[split] for each in found]) for split in ("val", "test")}

    def _logits(self, rung: Rung, runtime: str) -> dict[str, Tensor]:
        file = rung.passes.folder / ANSWERS.format(runtime, rung.precision)
        splits = {"val": self.data.val, "test": self.data.test}
        if file.exists():
            verify(file)
            found = load_file(file)
            if all(torch.equal(found[f"{split} labels"], images.labels) for split, images in splits.items()):
                return found
            self.hooks.say(f"the images are others than those to which {rung.name} answered; it answers again")
        call = rung.passes.open(runtime)
        spec = call.description.spec
        made = {f"{split} labels": images.labels for split, images in splits.items()}
        for split, images in splits.items():
            batches = images.batches(torch.arange(len(images)), BATCH)
            made[split] = torch.cat([call(normalize(x, spec.mean, spec.std)).logits for x, _ in batches])
        write_atomically(file, lambda stream: stream.write(save(made)))
        return made

    def times(self, rungs: Sequence[Rung], clock: Clock) -> list[dict[int, float]]:
        """Milliseconds of each pass by the number of images, measured on this machine. They are kept in a file.

        Args:
            rungs: The passes.
            clock: What times them.

        Returns:
            For each, the milliseconds of a call by its number of images.
        """
        file = self.folder / TIMES
        known = parse_json(read_document(file), file) if file.exists() else []
        where = vars(clock.place) | {"machine": processor_name()}
        here = [table for table in known if table["where"] == where]
        if any(table["where"] | {"machine": ""} == where | {"machine": ""} for table in known) and not here:
            self.hooks.say("the passes were timed on another machine; they are timed on this one")
        table = here[0] if here else {"where": where, "ms": {}}
        missing = [rung for rung in rungs if rung.name not in table["ms"]]
        if missing:  # all anew: what is compared is timed in turns
            self.hooks.say(f"timing {len(rungs)} passes in {clock.place.runtime}, batch {clock.place.batch}")
            measured = clock.time([rung.passes for rung in rungs], drawn(self.data.val, TIMED))
            table["ms"] |= {rung.name: ms for rung, ms in zip(rungs, measured, strict=True)}
            others = [each for each in known if each["where"] != where]
            write_text(file, json.dumps([*others, table], indent=1) + "\n")
        return [{int(count): ms for count, ms in table["ms"][rung.name].items()} for rung in rungs]


def drawn(images: Images, most: int, seed: int = 0) -> Tensor:
    """Draw images in random order, at most so many: uint8 `[N, C, H, W]`."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:most]
    return torch.cat([x for x, _ in images.batches(order, BATCH)])


def pixels(images: Images, most: int, network: RoutedNetwork) -> Tensor:
    """Draw images as a network takes them: `[N, C, H, W]`, normalised."""
    return normalize(drawn(images, most), network.spec.mean, network.spec.std)


def check_packages(aim: Aim) -> None:
    """Raise InputError if a package is not installed that an aim needs."""
    if aim.where != "torch":
        need("onnxscript", "onnx")
    if aim.where == "onnx" or "int8" in aim.precisions:
        need("onnxruntime", "onnx")  # which also quantises
    if aim.where == "openvino":
        need("openvino", "openvino")
