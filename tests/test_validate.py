"""`routekit recipes validate` knows what converting would refuse."""

from pathlib import Path

import pytest

from tests.cli.command import in_process

SMALL = "base: skip\nmodel: {name: resnet20}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SMALL + "junctions: {exit: {at: layer9.0}}", "layer9.0"),
        (SMALL + "junctions: {}", "a routed network decides something"),
        ("model: {name: resnet20}\ninference: bernoulli\nbase: default", "whose decisions can be drawn"),
        (SMALL + "target: 1%", "can cost from"),
        (SMALL + "seed: 18446744073709551616", "seed"),
        (SMALL + "training: {epochs: .inf}", "training.epochs"),
        ("training: {epochs: 1}\ntraining: {epochs: 2}", "training is there twice, the second time in line 2"),
        ("training: &a {epochs: 1}\ndense: *a", "an alias"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]", "an alias"),
        ("? [a]\n: 1", "a key that is no word"),
        ("[" * 3000, "nested too deeply"),
        ("seed: " + "9" * 5000, "a number is too long"),
        ("base: skip\nmodel: {name: resnet1000000004}", "unknown model"),
        (SMALL + "data: {input_size: 100000000}", "data.input_size"),
    ],
)
def test_validating_knows_what_converting_would_refuse(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    done = in_process("recipes", "validate", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
