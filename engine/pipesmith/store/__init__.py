"""Content by digest, results by action key, and the state database that only saves time."""
