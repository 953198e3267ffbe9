"""The packet filter, through nft."""
