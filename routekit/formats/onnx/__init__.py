"""A routed network as an ONNX file, with its data-dependent skipping."""
