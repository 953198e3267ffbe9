"""What runs on nodes: scripts that the server puts into mounted images, and the Python tools
that people install into images (`logs`, `serial`, `setup`; standard library, Python 3.9).
"""
