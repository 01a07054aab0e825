"""Seeded task orders over the log engine: a virtual clock, cancellations, faults."""
