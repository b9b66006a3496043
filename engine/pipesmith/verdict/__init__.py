"""Deciding: whether a stage must run, and why. Runs nothing."""
