"""How libraries that export and quantise are kept from telling users what only their developers need."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(logger: str | None = None) -> Iterator[None]:
    """Let a library say nothing but errors meanwhile: not by warnings, not on stdout, not by a logger.

    Args:
        logger: The name of the logger; None for the one of all.
    """
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
