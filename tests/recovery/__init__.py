"""Logs that were torn, damaged, or changed behind a store's back."""
