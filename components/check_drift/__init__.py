"""The stage check-drift: is there anything new to learn, and is it still the same task."""
