"""The bytes on disk, as FORMAT.md has them."""
