"""How much of a route is taken, in words."""

from routekit_cli.predict import _taken


def test_how_much_a_route_takes() -> None:
    assert _taken(["0/layer1.0", "past network 0"], ["0/layer1.0", "past network 0", "1/layer1.0"]) == [
        "1 of 2 units",
        "on at 1 of 1 exits",
    ]
    assert _taken(["past narrow"], ["past narrow", "past end"]) == ["on at 1 of 2 exits"]
    assert _taken(["first sink at layer2.0"], ["first sink at layer2.0", "past layer1.0"]) == ["on at 0 of 1 exits"]
    assert _taken([], []) == []
