"""Commands about paging: `locum page`, `locum location`, `locum wake-on`."""
