"""Facts and findings of a host for one server and one laptop."""
