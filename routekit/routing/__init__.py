"""What a decision is: routers score, gates relax, a trace records."""
