"""Commands about paging: `locum page`, `locum location`."""
