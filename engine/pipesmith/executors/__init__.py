"""Where stages run. Executors know nothing of lock, cache or history."""
