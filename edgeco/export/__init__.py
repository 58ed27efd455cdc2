"""[build side] Step graph to ONNX: norms folded, camera frames taken as they come, states named."""
