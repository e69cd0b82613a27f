"""A routed network in any runtime: torch, onnxruntime, OpenVINO."""
