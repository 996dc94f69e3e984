"""What policies are built from: beliefs about caches and backlogs, kept in step with what happens. No I/O, no clock."""
