"""Steps and checks that several scenarios share."""
