"""Doing: the life of a build and of each stage in it."""
