"""What a stage's interpreter is made of: resolved by uv, pinned in pipe.lock, built once a resolved set. See docs/environments.md."""
