"""pipe.lock: what the last good build saw and made."""
