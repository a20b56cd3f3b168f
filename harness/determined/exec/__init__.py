"""The programs of one trial, in a container or in local processes: the supervisor and its worker.

Start it as `python3 <this directory>`: Python runs the `__main__.py` of a directory with that directory first
on `sys.path`, so no file of the context, e.g. `json.py` or `determined/`, is imported instead. `python3 -m
determined.exec` does the same, unless the current directory has a package `determined`.
"""
