"""Export the network from PyTorch to a bundle with graphs."""
