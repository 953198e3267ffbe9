"""Port numbers of the platform (spec node-protocols §1.4)."""

RPC = 12345
STREAMS = 12347
NETCONSOLE = 12342
NODE_SERVICE = 12346
HTTP = 80
NBD = 10809
TFTP = 69
NFS = 2049
