"""What was run: records, snapshots, logs, metrics."""
