"""What nodes behind the VPN need of the outside: ssh-keygen, sshd, the neighbours of walt-net."""
