"""Following the log: views, saved states, rebuilds, side effects, read models."""
