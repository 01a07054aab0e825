"""The JSONL engine: bytes on disk, the commit, recovery, reading. FORMAT.md is its manual."""
