"""The host's own address translation beside this node: packets that enter the stack twice, and the table for them."""
