"""Places of programs on interfaces, among those of others: tcx and clsact."""
