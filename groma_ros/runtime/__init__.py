"""How a built model runs: one file hides one vendor library."""
