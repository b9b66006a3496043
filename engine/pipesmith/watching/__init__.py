"""Telling that something changed below folders: by the system's events, else by looking again and again."""
