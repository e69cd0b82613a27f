"""What leaves a run: compact checkpoints as a JSON spec and safetensors."""
