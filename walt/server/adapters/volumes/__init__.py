"""File systems that hold what nodes can reach, and nothing else (design D21).

NFS file handles name inodes: whoever may mount one directory of a file system can ask for
any file of that file system.
"""
