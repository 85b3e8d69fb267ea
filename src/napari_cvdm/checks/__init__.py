"""What a run checks of its own result."""
