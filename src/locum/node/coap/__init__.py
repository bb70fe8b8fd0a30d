"""CoAP and OSCORE: the end point, its associations, and requests of roles."""
