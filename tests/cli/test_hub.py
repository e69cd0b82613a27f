"""The Hugging Face Hub, by a stand-in on this machine: a run is pushed, loaded again, and refused where it must be."""

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch

import routekit
from routekit.errors import InputError
from routekit.manifest import Manifest
from routekit.report.record import read_record
from tests.cli.command import ENVIRONMENT, in_process, write_tree
from tests.cli.command import routekit as command
from tests.cli.test_own_network import SOURCE
from tests.hub_stand_in import TOKEN, Hub, stand_in

# huggingface_hub warns of what its HTTP client deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
FILES = {"README.md", "network.json", "network.safetensors", "record.json", "routekit.json"}
IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in in place of the Hub, an empty cache, and somebody who is logged in."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    with stand_in() as served:
        address = served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", address, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # older ones have none
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


@pytest.fixture(scope="module")
def pushed(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run that was pushed as a user does it, in a process of its own."""
    with stand_in() as served, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "HF_ENDPOINT": served.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path_factory.mktemp("hf")),
            "HF_TOKEN": TOKEN,
        }.items():
            patch.setitem(ENVIRONMENT, name, value)
        done = command("push", "runs/routed", "user/routed", "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        said = {"run": "runs/routed", "address": f"{served.endpoint}/user/routed", "use": "hf://user/routed"}
        assert json.loads(done.stdout) == said
        return served.repositories["user/routed"].files("main")


def refused(done: CompletedProcess[str], code: int, *said: str) -> None:
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (code, 1), done.stderr
    for each in said:
        assert each in done.stderr


def test_what_is_pushed_is_loaded_to_the_bit(workplace: Path, pushed: dict[str, bytes], hub: Hub) -> None:
    assert {*pushed} == FILES | {".gitattributes"}
    assert all(str(workplace).encode() not in content for content in pushed.values())
    hub.put("user/routed", pushed)
    done = in_process("export", "runs/routed", "--out", "as-pushed", cwd=workplace)
    assert done.returncode == 0, done.stderr
    here, there = routekit.load(workplace / "as-pushed"), routekit.load("hf://user/routed")
    assert torch.equal(here(IMAGES).logits, there(IMAGES).logits)
    assert torch.equal(here(IMAGES).routes, there(IMAGES).routes)
    # A program, code, or whatever else lies there is never fetched.
    hub.put("user/routed", {"masked.pt2": b"x", "evil.py": b"x", "state.pt": b"x", "in/network.json": b"x"})
    before = len(hub.requests)
    assert torch.equal(routekit.load("hf://user/routed")(IMAGES).logits, here(IMAGES).logits)
    fetched = {each.rpartition("/")[2] for each in hub.requests[before:] if "/resolve/" in each}
    assert fetched <= FILES


def test_commands_take_what_is_on_the_hub(workplace: Path, pushed: dict[str, bytes], hub: Hub) -> None:
    hub.put("user/routed", pushed)
    word = "hf://user/routed@main"
    image, found = "images/test/class1/0.png", []
    for model in (word, "runs/routed"):
        done = in_process("predict", model, image, "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout)["images"][0]["top"][0]["class"])
    assert found[0] == found[1]
    done = in_process("evaluate", word, "--data", "images", "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["accuracy"]["dense"] == read_record(workplace / "runs/routed")["accuracy"]["dense"]
    for words in (["flops", word], ["export", word, "--out", "from-hub", "--format", "torch"]):
        assert in_process(*words, cwd=workplace).returncode == 0
    # The card there is made of the record there, and of nothing else.
    done = in_process("card", "hf://user/routed", cwd=workplace)
    assert done.stdout == pushed["README.md"].decode()
    cache = {file: file.read_bytes() for file in Path(hub_cache()).rglob("*") if file.is_file()}
    done = in_process("report", word, "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "report/report.md" in json.loads(done.stdout)["files"]
    assert {file: file.read_bytes() for file in Path(hub_cache()).rglob("*") if file.is_file()} == cache


def hub_cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE


def test_a_changed_byte_is_refused(workplace: Path, pushed: dict[str, bytes], hub: Hub) -> None:
    for name in ("network.safetensors", "network.json", "record.json"):
        changed = bytearray(pushed[name])
        changed[-3] ^= 1
        hub.put("user/changed", pushed | {name: bytes(changed)})
        ask = ["card", "hf://user/changed"] if name == "record.json" else ["flops", "hf://user/changed"]
        refused(in_process(*ask, cwd=workplace), 2, f"{name} is not as routekit wrote it")
    hub.put("user/bare", {name: content for name, content in pushed.items() if name != "routekit.json"})
    refused(in_process("flops", "hf://user/bare", cwd=workplace), 2, "nothing says how")


def test_what_is_not_there_or_cannot_be_reached(workplace: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put("user/other", {"README.md": b"mine"})
    for word, code, said in (
        ("hf://user/none", 2, "is not on the Hub, or is private"),
        ("hf://user/other@none", 2, "has no such revision"),
        ("hf://user/other", 2, "network.json is missing"),
        ("hf://user", 2, "is no name on the Hub"),
        ("hf://user/..", 2, "is no name on the Hub"),
        ("hf://user/a/b", 2, "is no name on the Hub"),
        ("hf://user/other@", 2, "ends where its revision should be"),
    ):
        refused(in_process("predict", word, "images", cwd=workplace), code, said)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(in_process("predict", "hf://user/none", "images", cwd=workplace), 1, "cannot be reached", "offline")
    refused(in_process("push", "runs/routed", "user/x", cwd=workplace), 1, "cannot be reached", "offline")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    refused(in_process("predict", "hf://user/none", "images", cwd=workplace), 1, "cannot be reached", "refused")


def test_what_is_not_pushed(workplace: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    run = workplace / "runs/unmeasured"
    if not run.exists():
        run.mkdir()
        (run / "run.yaml").write_bytes((workplace / "runs/routed/run.yaml").read_bytes())
    refused(in_process("push", run, "user/x", cwd=workplace), 2, "is not a finished run (record.json is missing)")
    for name in ("x", "user/a b", "user/-x", "user/x.git", "user/a--b", "a/b/c", "/"):
        refused(in_process("push", "runs/routed", name, cwd=workplace), 2, "is no name on the Hub")
    refused(in_process("push", "images", "user/x", cwd=workplace), 2, "is no run of routekit")
    assert hub.requests == []
    refused(in_process("push", "runs/routed", "other/x", cwd=workplace), 1, "(403)")
    monkeypatch.setenv("HF_TOKEN", "hf_nobody")
    refused(in_process("push", "runs/routed", "user/x", cwd=workplace), 1, "(401)", "hf auth login")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # What somebody else wrote is not replaced, and what is public does not pass for private.
    theirs = hub.put("user/theirs", {"README.md": b"mine"}).files("main")
    refused(in_process("push", "runs/routed", "user/theirs", cwd=workplace), 2, "did not write (README.md)")
    refused(in_process("push", "runs/routed", "user/theirs", "--private", cwd=workplace), 2, "public")
    assert hub.repositories["user/theirs"].files("main") == theirs
    assert [*hub.repositories] == ["user/theirs"]


def test_a_private_branch_and_a_second_push(workplace: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in (["--private"], ["--private", "--revision", "v2"], []):
        done = in_process("push", "runs/dense", "hf://user/dense", *options, "--json", cwd=workplace)
        assert done.returncode == 0, done.stderr
    assert hub.repositories["user/dense"].private
    assert {*hub.repositories["user/dense"].branches} == {"main", "v2"}
    card = hub.repositories["user/dense"].files("v2")["README.md"].decode()
    assert 'routekit.load("hf://user/dense@v2")' in card
    assert routekit.load("hf://user/dense@v2").is_static
    monkeypatch.delenv("HF_TOKEN")
    assert in_process("flops", "hf://user/dense@v2", cwd=workplace).returncode == 0  # it is in the cache
    refused(in_process("flops", "hf://user/dense", cwd=workplace), 2, "is not on the Hub, or is private")


def test_a_network_is_measured_when_it_is_pushed(workplace: Path, hub: Hub) -> None:
    network = routekit.load(workplace / "runs/routed")
    with pytest.raises(InputError, match="give the images of a network"):
        routekit.push(network, "user/network")
    address = routekit.push(network, "user/network", data=workplace / "images")
    assert address == f"{hub.endpoint}/user/network"
    files = hub.repositories["user/network"].files("main")
    assert all(str(workplace).encode() not in content for content in files.values())
    manifest = Manifest.model_validate_json(files["routekit.json"])
    assert {*manifest.files} == FILES - {"routekit.json"}
    there = routekit.load("hf://user/network")
    found = routekit.evaluate(there, workplace / "images")
    assert json.loads(files["record.json"])["accuracy"] == {"dense": None, "routed": found.accuracy}


def test_a_card_is_written_to_a_file(workplace: Path, tmp_path: Path) -> None:
    file = tmp_path / "card.md"
    done = in_process("card", "runs/routed", "--out", file, cwd=workplace)
    assert (done.returncode, done.stdout.replace("\n", "")) == (0, str(file))
    printed = in_process("card", "runs/routed", cwd=workplace).stdout
    assert printed == file.read_text()
    assert "by McNemar's exact test" in printed
    file.write_text("mine")
    refused(in_process("card", "runs/routed", "--out", file, cwd=workplace), 2, "--force")
    assert file.read_text() == "mine"
    found = json.loads(in_process("card", "runs/routed", "--out", file, "--force", "--json", cwd=workplace).stdout)
    assert found == {"run": "runs/routed", "file": str(file), "card": printed}
    refused(in_process("card", "images", cwd=workplace), 2, "is not a finished run")


def test_the_file_of_an_own_network_is_not_told(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "net.py").write_text(SOURCE)
    write_tree(tmp_path / "images", train=4, size=16)
    net = f"{tmp_path}/net.py:make_net"
    start = ["--data", tmp_path / "images", "--epochs", 0, "--set", "training.batch_size=4", "--name", "own"]
    done = in_process("finetune", net, "--weights", "none", *start, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = in_process("push", tmp_path / "runs/own", "user/own", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = hub.repositories["user/own"].files("main")
    assert all(str(tmp_path).encode() not in content for content in files.values())
    assert 'routekit.load("hf://user/own", model=...)' in files["README.md"].decode()
    refused(in_process("predict", "hf://user/own", tmp_path / "images", cwd=tmp_path), 2, "is your own network")
