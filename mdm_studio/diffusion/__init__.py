"""Schedules, corruptions and objectives of the papers."""
