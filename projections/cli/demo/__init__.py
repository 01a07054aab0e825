"""The demo: loops that are killed, and go on where they were. `python -m projections.cli.demo`."""
