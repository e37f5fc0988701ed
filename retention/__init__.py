"""Kept for the purge of history by policy; nothing is purged yet."""
