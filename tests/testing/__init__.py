"""The test kit itself: what it finds, and what it lets pass."""
