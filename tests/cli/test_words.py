"""How columns and answerers of all kinds of networks are called for people."""

import pytest
from routekit_cli.predict import _taken
from routekit_cli.summary import _answerer


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("layer1.2", "exit after layer1.2"),
        ("narrow", "the narrow form"),
        ("narrow.1", "narrow form 1"),
        ("end", "the end"),
        ("again", "both looks"),
        ("network 0", "network 0"),
        ("0/narrow", "the narrow form of network 0"),
        ("1/layer2.0", "exit after layer2.0 of network 1"),
        ("0/end", "the end of network 0"),
        ("stem", "exit after stem"),  # as records of the former version have it
    ],
)
def test_who_answers(after: str, said: str) -> None:
    assert _answerer(after) == said


def test_how_much_a_route_takes() -> None:
    assert _taken(["0/layer1.0", "past network 0"], ["0/layer1.0", "past network 0", "1/layer1.0"]) == [
        "1 of 2 units",
        "on at 1 of 1 exits",
    ]
    assert _taken(["past narrow"], ["past narrow", "past end"]) == ["on at 1 of 2 exits"]
    assert _taken(["first sink at layer2.0"], ["first sink at layer2.0", "past layer1.0"]) == ["on at 0 of 1 exits"]
    assert _taken([], []) == []
