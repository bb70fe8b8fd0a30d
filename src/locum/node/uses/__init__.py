"""Programs that use the home address (`traffic`): policy rules, control groups of single programs, names and portals."""
