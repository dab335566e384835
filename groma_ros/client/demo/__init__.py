"""The demonstration: one process plays a bag over DDS, one runs the node, and this one shows a live table."""
