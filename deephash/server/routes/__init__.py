"""The calls of the API, by topic: each module has a ``router``."""
