"""`groma bench`: what a frame costs on this machine, stage by stage, and what it would cost at best."""
