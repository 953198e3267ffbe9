"""What an experiment file costs beside its commands."""
