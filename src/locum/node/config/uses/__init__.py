"""Keys of [mobile_node] about programs that use the home address."""
