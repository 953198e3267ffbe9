"""AMP responders: check, call one domain method, shape the answer."""
