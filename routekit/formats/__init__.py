"""The files made from a run: compact checkpoints, and programs for other runtimes."""
