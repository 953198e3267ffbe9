"""An experiment is a file; what a run of it gave is an archive that others can compare.

`document` reads YAML with the lines of its values, `reading` makes an experiment (`model`) of it,
`casting` finds the nodes of its roles, `running` runs it with `detached` commands and writes an
`archive`; `sealing`, `showing` and `comparing` work on archives alone, without a server.
"""
