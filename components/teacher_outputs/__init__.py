"""The stage teacher-outputs."""
