"""Live sessions: TCP connections of unmodified programs, taken out, carried on elsewhere and put back (A12).

No event loop, no clock of its own, no policy: plain short system calls, for a thread of the node. The order of calls:

The device falls asleep
    find(home_addresses, exclude_pids)          connections and their holders (find again after freezing: programs fork)
    Freezer.freeze(processes)
    [data plane: suspend the flows - hold incoming packets, drop outgoing ones]
    LiveSocket.open(candidate).capture()        a SessionRecord; the socket stays in repair mode
    [store live.parked.to_json(); send record.to_cbor()]

The stand-in takes over, the flows' packets held
    SessionRecord.from_cbor(...)
    stand_in.restore(record, keep=...)          `keep` gives the socket to a holder.FdStore before it is live
    [deliver the held packets]
    Spool(...).drain(sock)                      whenever the socket is readable; stop watching while waiting(sock)
    after a restart: FdStore.take(), Spool.recover(sock)

The device wakes
    rounds: inject(spool.read(position, ...)), deliver its packets if any; let_go(), Freezer.thaw, wait for unread() == 0 or
        not much longer, Freezer.freeze, hold()
        A program that does not read makes no progress here; go on later, or when it reads.
    [flows held at the stand-in] Spool.stop(sock)   the FinalTcp, and the tail by read()
    inject the tail (rounds as before) until position() == final.received
    [the flow's way out open, its way in held] packets = finish(final); deliver them to this host; close()
    [release held packets] Freezer.thaw
    at the stand-in: FdStore.remove(name), stand_in.drop(sock), Spool.remove()

Back out: LiveSocket.resume() undoes a capture, Spool.resume(sock) undoes a stop. A device whose daemon was killed finds its
sockets with find, LiveSocket.open(candidate, Parked.from_json(...)) and position(); Freezer.adopt() keeps the programs frozen
meanwhile, Freezer.recover() lets them run.
"""
