"""What the kinds of junctions are called and decide, for the help: read without importing torch."""

import ast
import sys
from pathlib import Path


def kinds() -> dict[str, str]:
    """Return what each kind of junction decides, by its name; of kinds registered elsewhere once they are."""
    found: dict[str, str] = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and (name := _registered(node)):
                found[name] = _about(node)
    loaded = sys.modules.get("routekit.junctions.junction")
    if loaded is not None:
        found |= {name: loaded.junctions[name].about for name in loaded.junctions}
    return found


def _registered(node: ast.ClassDef) -> str:
    """The name by which a class is registered: `@junctions.register("skip")`; "" if it is not."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "junctions.register":
            return str(ast.literal_eval(decorator.args[0]))
    return ""


def _about(node: ast.ClassDef) -> str:
    """The words of a class: `about: ClassVar[str] = "which units run"`."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and ast.unparse(part.target) == "about" and part.value is not None:
            return str(ast.literal_eval(part.value))
    return ""
