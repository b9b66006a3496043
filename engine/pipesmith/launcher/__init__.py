"""The supervisor: a small process beside `pipe` that starts stages, watches them and ends them.

It is started as `python -I -S launcher/supervisor.py FD` and imports nothing of pipesmith, so that it starts in
milliseconds and stays small: what it forks is as small. docs/sandbox.md tells what it does.
"""
