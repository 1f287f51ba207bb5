"""Recipe → plan → artifact, and back."""
