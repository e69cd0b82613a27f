"""What is ours and what is not: manifests, folders that are there whole or not at all, digests."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routekit import files, manifest
from routekit.errors import InputError, RoutekitError
from routekit.files import check_file, check_folder, make_folder, whole_folder, write_text
from routekit.manifest import MANIFEST, Manifest, foreign, note, ours, read_manifest, unverified, verify


def names(folder: Path) -> set[str]:
    return {each.relative_to(folder).as_posix() for each in folder.rglob("*") if not each.is_dir()}


def test_a_folder_names_what_was_written_with_size_and_digest(tmp_path: Path) -> None:
    make_folder(tmp_path / "run", "run")
    write_text(tmp_path / "run" / "note.txt", "ä")
    found = read_manifest(tmp_path / "run")
    assert found is not None
    assert found.kind == "run"
    entry = found.files["note.txt"]
    assert entry is not None
    assert entry.size == 2
    assert entry.sha256.startswith("33e6d73fee82904c")  # printf 'ä' | sha256sum
    verify(tmp_path / "run" / "note.txt", needed=True)


def test_what_was_changed_is_refused_unless_nobody_wants_to_know(tmp_path: Path) -> None:
    make_folder(tmp_path / "run", "run")
    file = tmp_path / "run" / "note.txt"
    write_text(file, "yes")
    file.write_text("yep")
    with pytest.raises(InputError, match=r"note.txt is not as routekit wrote it: .*verify=False"):
        verify(file)
    with unverified():
        verify(file)
    other = tmp_path / "run" / "other.txt"
    other.write_text("")
    verify(other)
    with pytest.raises(InputError, match="nothing says how"):
        verify(other, needed=True)
    assert ours(tmp_path / "run", "*.txt") == [file]


def test_force_removes_what_the_manifest_names_and_nothing_else(tmp_path: Path) -> None:
    run, outside = tmp_path / "run", tmp_path / "thesis.txt"
    outside.write_text("three years")
    make_folder(run, "run")
    write_text(run / "record.json", "{}")
    make_folder(run / "dense", "run")
    write_text(run / "dense" / "record.json", "{}")
    (run / "plain").mkdir()
    check_folder(run, "run", force=True)
    (run / "dense" / "photo.jpg").write_text("mine")
    before = names(run)
    with pytest.raises(InputError, match=r"files that routekit did not write \(dense/photo.jpg\)"):
        check_folder(run, "run", force=True)
    with pytest.raises(InputError, match="did not write"):
        make_folder(run, "run")
    assert names(run) == before
    (run / "dense" / "photo.jpg").unlink()
    (run / "dense" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="did not write"):
        make_folder(run, "run")
    (run / "dense" / "link").unlink()
    make_folder(run, "run")
    assert names(run) == {MANIFEST}
    assert outside.read_text() == "three years"


def test_without_force_and_for_other_kinds_nothing_is_replaced(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_folder(run, "run")
    check_folder(run, "run", force=False)  # it was only just begun
    write_text(run / "run.yaml", "")
    with pytest.raises(InputError, match=r"holds a run: go on with resume=.*force=True"):
        check_folder(run, "run", force=False)
    with pytest.raises(InputError, match="holds a routekit run, not a network"):
        check_folder(run, "network", force=True)
    own = tmp_path / "own"
    own.mkdir()
    (own / "run.yaml").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        check_folder(own, "run", force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        check_folder(tmp_path / "file", "run", force=True)
    with pytest.raises(InputError, match="no folder that can be written to"):
        check_folder(tmp_path / "file" / "run", "run", force=True)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="is a link"):
        check_folder(tmp_path / "nowhere", "run", force=True)


def test_what_lies_in_a_folder_of_ours_and_is_no_part_of_it_stays(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_folder(run, "run")
    make_folder(run / "mine", "network")
    write_text(run / "mine" / "network.json", "{}")
    with pytest.raises(InputError, match=r"run holds mine, no part of it: move"):
        check_folder(run, "run", force=True)
    with pytest.raises(InputError, match="no part of it"):
        make_folder(run, "run")
    assert (run / "mine" / "network.json").exists()


def test_a_file_is_ours_as_long_as_it_is_as_we_wrote_it(tmp_path: Path) -> None:
    make_folder(tmp_path / "run", "run")
    file = tmp_path / "run" / "report.md"
    write_text(file, "ours")
    check_file(file, force=False)
    file.write_text("ours, and a remark")
    with pytest.raises(InputError, match=r"report.md exists"):
        check_file(file, force=False)
    check_file(file, force=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        check_file(tmp_path / "pipe", force=True)
    with pytest.raises(InputError, match="no regular file"):
        verify(tmp_path / "pipe")


def test_a_path_is_noted_where_it_leads_to(tmp_path: Path) -> None:
    make_folder(tmp_path / "run", "run")
    write_text(tmp_path / "run" / ".." / "beside.txt", "")
    assert read_manifest(tmp_path / "run") == Manifest(kind="run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    write_text(tmp_path / "link" / "inside.txt", "")
    found = read_manifest(tmp_path / "run")
    assert found is not None
    assert [*found.files] == ["inside.txt"]
    with pytest.raises(InputError, match=r"cannot be written: .* is no name of a file"):
        write_text(tmp_path / "run" / "a\\b.txt", "")
    assert names(tmp_path / "run") == {MANIFEST, "inside.txt"}


def test_nothing_is_written_among_images(tmp_path: Path) -> None:
    (tmp_path / "images" / "train" / "cat").mkdir(parents=True)
    for place in ("images/train", "images/train/new", "images/val/run", "images/train/cat/../dog"):
        with pytest.raises(InputError, match=r"among the images|holds other files|is in it"):
            check_folder(tmp_path / place, "run", force=False, needs=[tmp_path / "images"])
    check_folder(tmp_path / "images" / "runs" / "mine", "run", force=False, needs=[tmp_path / "images"])


@pytest.mark.parametrize("name", ["../thesis.txt", "/etc/passwd", "a/../../b", "", ".", "a//b", "./a", "a\\..\\b"])
def test_a_manifest_cannot_name_what_lies_elsewhere(name: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    document = {"format": "routekit folder", "version": 1, "kind": "run", "files": {name: None}}
    (tmp_path / "run" / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"routekit.json is damaged"):
        check_folder(tmp_path / "run", "run", force=True)


@given(st.binary(max_size=200))
def test_a_damaged_manifest_is_one_line(content: bytes) -> None:
    def read(folder: Path) -> None:
        (folder / MANIFEST).write_bytes(content)
        with suppress(InputError):  # nothing else comes through
            read_manifest(folder)

    in_a_folder(read)


def in_a_folder(act: Callable[[Path], None]) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        act(Path(folder))


def test_a_folder_is_there_whole_or_as_before(tmp_path: Path) -> None:
    place = tmp_path / "network"
    for text in ("old", "new"):
        with whole_folder(place, "network") as made:
            (made / "a").write_text(text)
            assert not place.exists() or (place / "a").read_text() == "old"
    assert (place / "a").read_text() == "new"
    with pytest.raises(RuntimeError, match="half way"), whole_folder(place, "network") as made:
        (made / "a").write_text("newer")
        raise RuntimeError("half way")
    assert (place / "a").read_text() == "new"
    assert names(tmp_path) == {"network/a", f"network/{MANIFEST}"}
    (place / "mine").write_text("")
    with pytest.raises(InputError, match="did not write"), whole_folder(place, "network") as made:
        (made / "a").write_text("newest")
    assert (place / "a").read_text() == "new"


def test_folders_change_places_where_the_system_cannot_do_it_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: object())
    test_a_folder_is_there_whole_or_as_before(tmp_path)


def test_what_a_killed_process_left_is_ours(tmp_path: Path) -> None:
    make_folder(tmp_path / "run", "run")
    left = tmp_path / "run" / ".network.a1b2c3d4.partial"
    (left / "made").mkdir(parents=True)
    (left / "made" / "half").write_text("")
    note(tmp_path / "run" / "record.json", finished=False)
    (tmp_path / "run" / ".record.json.0a1b2c3d.partial").write_text("{")
    assert [*foreign(tmp_path / "run")] == []
    theirs = tmp_path / "run" / ".notes.a1b2c3d4.partial"  # what only looks like that
    theirs.write_text("mine")
    assert [*foreign(tmp_path / "run")] == [theirs]
    theirs.unlink()
    make_folder(tmp_path / "run", "run")
    assert names(tmp_path / "run") == {MANIFEST}


def test_a_file_that_cannot_be_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a", "old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RoutekitError, match="No space left on device; what was there before is untouched"):
        write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == {"a"}


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "precious").read_text() == "mine"
    assert (tmp_path / "a").read_text() == "new"


def test_files_of_users_need_force_and_our_own_do_not(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    check_file(file, force=False)
    file.write_text("mine")
    with pytest.raises(InputError, match=r"page.html exists: choose another name, or replace it with force=True"):
        check_file(file, force=False)
    check_file(file, force=True)
    with pytest.raises(InputError, match="there is no folder"):
        check_file(tmp_path / "no" / "page.html", force=True)
    with pytest.raises(InputError, match="is a folder"):
        check_file(tmp_path, force=True)
    make_folder(tmp_path / "run", "run")
    (tmp_path / "run" / "report").mkdir()
    write_text(tmp_path / "run" / "report" / "report.md", "")
    check_file(tmp_path / "run" / "report" / "report.md", force=False)


def test_a_file_that_grows_is_ours_without_a_digest(tmp_path: Path) -> None:
    make_folder(tmp_path / "run", "run")
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    note(tmp_path / "run" / "metrics.jsonl", finished=False)
    found = read_manifest(tmp_path / "run")
    assert found is not None
    assert found.files == {"metrics.jsonl": None}
    assert [*foreign(tmp_path / "run")] == []


def test_documents_are_regular_files_of_bounded_size(tmp_path: Path) -> None:
    from routekit.documents import read_document

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no regular file"):
        read_document(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(65 * 2**20)
    with pytest.raises(InputError, match="larger than 64 MiB"):
        read_document(tmp_path / "large")
    (tmp_path / "latin").write_bytes("ä".encode("latin-1"))
    with pytest.raises(InputError, match="no text in UTF-8"):
        read_document(tmp_path / "latin")
    assert manifest.WRITING.fullmatch(".a.12345678.partial")
    assert Manifest(kind="run").version == 1
