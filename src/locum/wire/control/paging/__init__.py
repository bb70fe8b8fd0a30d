"""The messages of paging (Figs. 11, 12): pages, paging information, event tables, redirection, locations.

One file a message; paging.cddl describes them. The values that several messages share are in `way`, `cause`, `provision`,
`outcome`, `status` and `rules`. This package must not know how a message is sent, nor its effect.
"""
