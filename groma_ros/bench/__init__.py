"""`groma bench`: the cost of a frame on this machine, stage by stage, against a computed lower bound."""
