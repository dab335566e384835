"""The TensorRT backend: bindings, engine cache, graphs on CUDA."""
