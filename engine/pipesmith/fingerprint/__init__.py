"""What a stage is made of, item by item, from a work tree or from a commit by one code."""
