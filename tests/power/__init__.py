"""Power cuts under the real engine: on real file systems, and on one that forgets."""
