"""The routed network: a program of steps, one forward, three executions."""
