"""Libraries are quiet meanwhile, and only then."""

import logging
import sys
import warnings

import pytest

from routekit.formats.onnx.quiet import quiet


@pytest.mark.parametrize("name", [None, "a.library"])
def test_only_errors_are_heard(name: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    log, handler = logging.getLogger(name), logging.StreamHandler()  # on the stderr of now
    log.addHandler(handler)
    level = log.level
    try:
        log.warning("before")  # the answer whether it is heard is kept by the logger
        with pytest.raises(ValueError, match="wrong"), quiet(name):
            log.warning("meanwhile")
            log.error("an error")
            warnings.warn("meanwhile", UserWarning, stacklevel=1)
            sys.stdout.write("meanwhile")
            raise ValueError("wrong")
        log.warning("after")
    finally:
        log.removeHandler(handler)
    out, err = capsys.readouterr()
    assert (out, err.split("\n")[:3]) == ("", ["before", "an error", "after"])
    assert log.level == level
