"""The log on a simulated disk: every crash, kill and failed call that the medium may bring."""
