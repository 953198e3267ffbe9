"""Names of devices that come: until DNS knows them, and what it answers meanwhile."""
