"""The notebooks run as they stand."""

import contextlib
import io
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("notebook", sorted(DOCS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    names: dict[str, object] = {}
    said = io.StringIO()
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(said):
        for cell in json.loads(notebook.read_text())["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == []  # what it prints hangs on the machine
                exec(compile("".join(cell["source"]), notebook.name, "exec"), names)
    assert "agree with torch" in said.getvalue()
    assert (tmp_path / "quickstart-onnx" / "single.onnx").exists()
