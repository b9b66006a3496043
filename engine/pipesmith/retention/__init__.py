"""What stays in the cache and for how long: roots, collection, trash."""
