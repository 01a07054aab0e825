"""What every backend promises: one file per promise, each run against every backend and loop."""
