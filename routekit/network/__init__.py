"""The dynamic network: one forward, several ways to execute it."""
