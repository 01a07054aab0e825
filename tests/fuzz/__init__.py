"""Hostile input: whatever stands in a file, there is an answer, and it costs little."""
