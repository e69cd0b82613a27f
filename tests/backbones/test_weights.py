import hashlib
import pickle
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from routekit.backbones.load import build, load_backbone, spec_of
from routekit.backbones.weights import load_into, read_state_dict
from routekit.errors import InputError, RoutekitError


def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return build(spec_of("resnet20")).model.state_dict()


@pytest.mark.parametrize("suffix", [".th", ".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("level", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_form_of_a_checkpoint_is_read(tmp_path: Path, suffix: str, level: str | None, prefix: str) -> None:
    want = state()
    content: object = {prefix + name: tensor.clone() for name, tensor in want.items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save({level: content, "best_prec1": 91.7} if level else content, path)
    got = load_backbone("resnet20", weights=str(path)).model.state_dict()
    assert all(torch.equal(tensor, got[name]) for name, tensor in want.items())


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "evil.th").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "evil.th"):
        with pytest.raises(InputError, match=name):
            read_state_dict(str(tmp_path / name))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.pt", b"", "empty.pt is damaged"),
        ("torn.safetensors", b"\x08\x00\x00", "torn.safetensors is damaged"),
        ("text.th", b"hello, this is no checkpoint", "text.th is damaged, or no checkpoint"),
        ("image.pth", b"\x89PNG\r\n\x1a\n" + bytes(64), "image.pth is damaged, or no checkpoint"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_state_dict(str(tmp_path / name))


@pytest.mark.parametrize("zipped", [True, False])
def test_half_a_checkpoint_is_damaged(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "half.pt"
    torch.save(state(), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"half\.pt is damaged"):
        read_state_dict(str(path))


def test_a_whole_pickled_model_says_what_to_save_instead(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"holds more than tensors.*state_dict\(\) alone"):
        read_state_dict(str(tmp_path / "model.pt"))


def test_a_missing_file_and_a_file_without_tensors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_state_dict(str(tmp_path / "nowhere.pt"))
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="no state_dict"):
        read_state_dict(str(tmp_path / "other.pt"))


def test_a_foreign_checkpoint_says_what_does_not_fit() -> None:
    model = build(spec_of("resnet32")).model
    with pytest.raises(InputError, match=r"no checkpoint of this network: tensors \d+ missing, e.g. layer1.3"):
        load_into(model, state(), classifier="linear", source="r20.th")


def test_a_classifier_of_another_size_is_replaced_and_said(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "ten.pt")
    view = load_backbone("resnet20", weights=str(tmp_path / "ten.pt"), num_classes=7)
    assert view.notes == ["the classifier of ten.pt (10 classes) was replaced by a new one with 7"]
    assert view.model.linear.weight.shape == (7, 64)
    assert torch.equal(view.model.conv1.weight, state()["conv1.weight"])


def test_urls_are_checked_against_the_hash_in_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    torch.save(state(), tmp_path / "plain.pt")
    digest = hashlib.sha256((tmp_path / "plain.pt").read_bytes()).hexdigest()
    good, bad = tmp_path / f"net-{digest[:8]}.pt", tmp_path / "net-00000000.pt"
    for copy in (good, bad):
        copy.write_bytes((tmp_path / "plain.pt").read_bytes())
    assert torch.equal(read_state_dict(good.as_uri())["conv1.weight"], state()["conv1.weight"])
    with pytest.raises(InputError, match="not the file that its name promises"):
        read_state_dict(bad.as_uri())
    with pytest.raises(InputError, match=r"nowhere.pt: no such file"):
        read_state_dict((tmp_path / "nowhere.pt").as_uri())
    assert not (tmp_path / "home").exists()  # what lies here is not copied anywhere


def test_a_download_never_replaces_another_file_of_its_name_and_leaves_nothing_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "best.pth").write_text("of another program")

    def fetch(_url: str, target: str, *_: object, **__: object) -> None:
        Path(target).write_text("<html>not found</html>")

    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    for name in ("best.pth", "net-0123abcd.th"):
        with pytest.raises(InputError, match="is damaged"):
            read_state_dict(f"https://one.example/{name}")
    assert [file.name for file in cache.iterdir()] == ["best.pth"]
    assert (cache / "best.pth").read_text() == "of another program"


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("conv1.weight", lambda tensor: tensor.fill_(torch.nan), "conv1.weight holds values that are not finite"),
        ("bn1.bias", lambda tensor: tensor.fill_(torch.inf), "bn1.bias holds values that are not finite"),
        ("bn1.running_var", lambda tensor: tensor.neg_(), "bn1.running_var is a variance, and has values under 0"),
        ("linear.weight", lambda tensor: tensor.to(torch.int32), "linear.weight is of type int32, not a float"),
        ("linear.bias", lambda tensor: tensor > 0, "linear.bias is of type bool, not a float"),
    ],
)
def test_values_that_are_no_weights_are_refused_by_name(
    tmp_path: Path, name: str, spoil: Callable[[torch.Tensor], torch.Tensor], says: str
) -> None:
    spoiled = {key: value.clone() for key, value in state().items()}
    spoiled[name] = spoil(spoiled[name])
    torch.save(spoiled, tmp_path / "spoiled.pt")
    with pytest.raises(InputError, match=says):
        load_backbone("resnet20", weights=str(tmp_path / "spoiled.pt"))


def test_the_cache_serves_only_names_with_a_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    fetched = []

    def fetch(url: str, target: str, hash_prefix: str | None, **_: object) -> None:
        fetched.append((url, hash_prefix))
        torch.save({"weight": torch.full((1,), float(len(fetched)))}, target)

    monkeypatch.setattr("torch.hub.download_url_to_file", fetch)
    for url, value in [
        ("https://one.example/best.pth", 1.0),
        ("https://two.example/best.pth", 2.0),
        ("https://one.example/net-0123abcd.th", 3.0),
        ("https://one.example/net-0123abcd.th", 3.0),
    ]:
        assert read_state_dict(url)["weight"].item() == value
    assert [hash_prefix for _, hash_prefix in fetched] == [None, None, "0123abcd"]


@pytest.mark.parametrize(
    "fault", [URLError("no route to host"), ConnectionResetError("peer"), IncompleteRead(b""), PermissionError("cache")]
)
def test_a_failed_download_is_one_line_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(
        RoutekitError, match=r"^cannot download https://github.com/.*resnet20-12fca82f.th.*model.weights=PATH"
    ) as caught:
        load_backbone("resnet20")
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)


def test_the_libraries_failed_downloads_are_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network\nand much more")

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", fail)
    with pytest.raises(RoutekitError, match=r"weights of torchvision:resnet18 \(no network\): give model.weights=PATH"):
        load_backbone("torchvision:resnet18")


def test_the_published_checkpoints_are_fetched_by_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    torch.save({"state_dict": {f"module.{k}": v for k, v in state().items()}}, tmp_path / "resnet20.th")
    digest = hashlib.sha256((tmp_path / "resnet20.th").read_bytes()).hexdigest()[:8]
    name = f"resnet20-{digest}.th"
    (tmp_path / name).write_bytes((tmp_path / "resnet20.th").read_bytes())
    monkeypatch.setattr("routekit.backbones.load._PUBLISHED", tmp_path.as_uri() + "/")
    monkeypatch.setitem(__import__("routekit.backbones.load").backbones.load._PUBLISHED_FILES, "resnet20", name)
    view = load_backbone("resnet20")
    assert torch.equal(view.model.conv1.weight, state()["conv1.weight"])


def test_no_published_weights_is_an_error_with_a_way_out() -> None:
    with pytest.raises(InputError, match=r"no weights are published for resnet74: give model\.weights=PATH"):
        load_backbone("resnet74")
