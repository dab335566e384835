"""The three training stages of the paper."""
