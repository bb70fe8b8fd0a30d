"""Tables of a configuration that are about paging."""
