"""Everything that a proxy is shown on its way to its process: stored bytes, datagrams, captured packets."""
