"""Where tests make the directories of servers and daemons."""

# On a disk: on Debian 13 /tmp is in memory, which its ganesha does not export. Short, since
# the paths of sockets are.
ON_DISK = "/var/tmp"
