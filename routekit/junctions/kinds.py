"""All kinds of junctions that come with routekit: whoever imports this finds them in the registry."""

from routekit.junctions import again, branch, cascade, exit, skip, tree  # noqa: A004 - a file is called as its junction
from routekit.junctions.junction import junctions

__all__ = ["again", "branch", "cascade", "exit", "junctions", "skip", "tree"]
