"""NBFS, a third-party network file service that some laboratories add (spec server §1.3)."""
