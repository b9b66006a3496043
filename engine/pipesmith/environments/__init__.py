"""What a stage's interpreter is made of: resolved, pinned, built once a resolved set."""
