"""From the network in PyTorch to what runs without it: a bundle with its graphs."""
