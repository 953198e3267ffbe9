"""NFS exports of images and of nodes' persistent directories."""
