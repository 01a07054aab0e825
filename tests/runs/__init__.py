"""The promises of run contexts."""
