"""All kinds of junctions that come with routekit: whoever imports this finds them in the registry."""

from routekit.junctions import act, again, branch, cascade, exit, skip, tree  # noqa: A004 - a file is called as its junction
from routekit.junctions.junction import junctions

__all__ = ["act", "again", "branch", "cascade", "exit", "junctions", "skip", "tree"]
