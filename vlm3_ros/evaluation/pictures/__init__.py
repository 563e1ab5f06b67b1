"""Pictures of what was asked and answered."""
