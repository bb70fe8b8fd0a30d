"""Work for application proxies of each kind, with stock programs, that a scenario has done beside its own story."""
