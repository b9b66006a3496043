"""The supervisor process that starts stages. Imports nothing of pipesmith; runs with `python -I -S`."""
