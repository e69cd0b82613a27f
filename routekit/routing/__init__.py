"""What a decision is: routers score, gates relax, a trace records."""

import routekit.routing.policy_network  # noqa: F401 - it registers its bank of routers
