"""TensorRT, from 8.6 to 11.x by one path: plans compiled once on the device, states on the GPU between steps."""
