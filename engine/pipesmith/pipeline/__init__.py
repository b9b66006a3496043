"""pipeline.toml: text in, checked values out. Knows no disk and no git."""
