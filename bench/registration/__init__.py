"""Registrations, start-up, memory and the time of `walt node show`."""
