"""The lab: real daemons and stock programs in network namespaces, and facts measured on their packets.

A scenario is named after its figure. It builds the network of Fig. 5, runs `locum node run` for each node,
plays its story, and checks what it *measured*: the lab must not know how a node decides anything, and asks
nodes only what an operator could ask them through their control socket.
"""
