"""The demonstration: a bag played over DDS from one process, the node in another, and a live table in this
one."""
