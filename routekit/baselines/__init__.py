"""Static networks of equal cost that a routed one has to beat."""
