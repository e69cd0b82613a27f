"""The one training loop, its schedule and its resumable state."""
