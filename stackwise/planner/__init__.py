"""Seconds before anything runs: what machines can do, measured or stated, and what stages take."""
